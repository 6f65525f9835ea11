"""Stories as people hear or read them: words, sentences and pause groups with ids, onsets and durations.

Times are seconds on the story's clock, which starts with each run's stimulus; text is kept as written. Nothing here
depends on scanners, models or regression.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
