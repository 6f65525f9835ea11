"""A whole study: settings as values and as a file, corpus, feature spaces, subjects, inference, and what is kept.

The only room that decides what is kept and found again.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
