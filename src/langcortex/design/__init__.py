"""Where story and scanner meet: features and recordings become rows matched by id; the lag between two clocks.

A design has rows, columns and runs; times in seconds are not needed after it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
