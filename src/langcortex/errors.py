"""Every error langcortex raises on purpose.

::

    LangcortexError            something the user can mend; the command line prints it and exits with 2
    ├── SettingsError          a study file, an option or an argument
    ├── StoryError             word timings or text
    ├── RecordingError         images, surfaces or tables of brain responses
    ├── ModelError             a language model or its tokenizer
    ├── AlignmentError         a story and a recording that do not meet
    ├── FitError               too little data, or data of the wrong shape, for what was asked
    └── StoreError             kept results that cannot be read or written

Each message says what is wrong, where, and what to do about it. Anything else that is raised is a bug.
"""


class LangcortexError(Exception):
    """Something the user can mend."""


class SettingsError(LangcortexError):
    """A study file, an option or an argument is wrong."""


class StoryError(LangcortexError):
    """Word timings or text are wrong."""


class RecordingError(LangcortexError):
    """Brain responses are missing, unreadable or malformed."""


class ModelError(LangcortexError):
    """A language model cannot be loaded, or cannot say where its tokens are."""


class AlignmentError(LangcortexError):
    """A story and a recording do not meet."""


class FitError(LangcortexError):
    """The data cannot support what was asked."""


class StoreError(LangcortexError):
    """A kept result cannot be read or written."""
