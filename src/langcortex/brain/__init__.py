"""Recordings as scans × targets, and where the targets lie: space, regions, atlases, file formats, response kernels.

The scanner's clock is moved to the story's clock when a recording is read. Nothing here knows words.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
