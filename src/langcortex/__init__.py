"""langcortex: how much of the brain's response to language does a language model explain?

The public names stand in ``__init__.pyi``. Each is loaded when it is first used, so that ``import langcortex`` is quick.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, _dir, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    return [*_dir(), "__version__"]
