"""What a study finds: `Results` in memory, its tables and maps on disk, and how each p value was made.

This room fits nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
