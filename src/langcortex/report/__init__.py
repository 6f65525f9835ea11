"""Figures and the HTML report, drawn and written from `Results`.

This room computes nothing that is not in the results.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
