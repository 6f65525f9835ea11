"""Recordings as scans × targets, and where the targets are: space, regions, atlases, file formats, response kernels.

Recordings are read onto the story's clock. Nothing here knows about words.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
