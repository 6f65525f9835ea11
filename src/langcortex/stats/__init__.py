"""Statistics of scores over units: sign flips, bootstrap, equivalence, layer curves, noise ceilings, counts of nulls.

Arrays of scores only. Of the brain it knows `Space`, for neighbours.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
