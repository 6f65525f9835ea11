"""The packages that language models need, which the core installation leaves out."""

from __future__ import annotations

import importlib.util

from langcortex.errors import ModelError

PACKAGES = ("torch", "transformers")


def require_packages() -> None:
    """Check that the packages of language models are installed.

    Raises
    ------
    ModelError : one of them is missing
    """
    missing = [name for name in PACKAGES if not _is_installed(name)]
    if missing:
        raise ModelError(
            f"Language models need the package{'s' * (len(missing) > 1)} {' and '.join(missing)}. "
            "Run: pip install 'langcortex[models]'"
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
