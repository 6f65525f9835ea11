"""A design under a protocol: folds, features prepared in training rows, fits, choices, scores, partitions, null tests.

Choices are those of delay, penalty and layer, made in training rows. No settings file, no corpus, and no disk but
`export`. The published recipe is in `replication`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
