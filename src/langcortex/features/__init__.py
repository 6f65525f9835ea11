"""Feature tables of a story, from language models or from its text alone.

A table has one row per word or sentence and one column per feature. `models` needs torch and transformers,
`controls` needs neither. Nothing here uses brain data.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
