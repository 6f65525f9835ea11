"""Every error langcortex raises on purpose.

::

    LangcortexError            something the user can fix; the command line prints it and exits with 2
    ├── SettingsError          a study file, an option or an argument
    ├── StoryError             word timings or text
    ├── RecordingError         images, surfaces or tables of brain responses
    ├── ModelError             a language model or its tokenizer
    ├── AlignmentError         a story and a recording that do not match
    ├── FitError               too little data, or data of the wrong shape, for the analysis
    └── StoreError             saved results that cannot be read or written

Each message says what is wrong, where, and what to do about it. Any other exception is a bug.
"""


class LangcortexError(Exception):
    """Something the user can fix."""


class SettingsError(LangcortexError):
    """A study file, an option or an argument is wrong."""


class StoryError(LangcortexError):
    """Word timings or text are wrong."""


class RecordingError(LangcortexError):
    """Brain responses are missing, unreadable or malformed."""


class ModelError(LangcortexError):
    """A language model cannot be loaded, or its tokenizer gives no offsets."""


class AlignmentError(LangcortexError):
    """A story and a recording do not match."""


class FitError(LangcortexError):
    """The data do not support the analysis."""


class StoreError(LangcortexError):
    """A saved result cannot be read or written."""
