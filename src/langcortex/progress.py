"""Callbacks that report the progress of long work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of the work, the number of steps done, and their total."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""
