"""Where story and scanner meet: features and recordings become rows matched by id; the lag between two clocks.

After this room there are rows, columns and runs, and nobody knows what a second is.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
