"""langcortex: how much of the brain's response to language does a language model explain?"""

__version__ = "0.1.0"
