"""Where and by which regime responses are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langcortex.arrays import Array
from langcortex.errors import FitError
from langcortex.ridge.plan import Plan, chunk_size


@dataclass(frozen=True)
class Backend:
    """Where responses are fitted, and by which regime. Scores do not depend on it but for rounding.

    Attributes
    ----------
    on : "numpy"; "torch" for torch on the CPU; or a device of torch, such as "cuda" or "cuda:1"
    regime : see `langcortex.ridge.planner.make_plan`
    """

    on: str = "numpy"
    regime: str = "auto"

    def place(self, y: np.ndarray) -> Array:
        """Put responses where they are fitted."""
        if self.on == "numpy":
            return y
        import torch

        return torch.from_numpy(np.ascontiguousarray(y)).to("cpu" if self.on == "torch" else self.on)

    def chunk(self, plans: Sequence[Plan]) -> int:
        """How many targets to handle at once: what a processor's cache holds, or enough to keep a GPU busy."""
        size = chunk_size(plans)
        return size if self.on in ("numpy", "torch") else 16 * size

    def check(self) -> None:
        """Refuse a device that is not there.

        Raises
        ------
        FitError
        """
        if self.on == "numpy":
            return
        try:
            self.place(np.zeros((1, 1))) + 1  # float64, which some devices lack
        except (ImportError, RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FitError(
                f'Responses cannot be fitted on \'{self.on}\': {reason}. Use fit.on = "numpy", "torch", or a device that torch has.'
            ) from error


DEFAULT = Backend()
