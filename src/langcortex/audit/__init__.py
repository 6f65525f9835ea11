"""Findings about a study before and after it is run, its calibration on recordings without a story, its ablation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
