"""The device where responses are fitted, and the solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langcortex.arrays import Array
from langcortex.errors import FitError
from langcortex.ridge.plan import Plan, chunk_size


@dataclass(frozen=True)
class Backend:
    """Where responses are fitted, and by which solver. Scores do not depend on it but for rounding.

    Attributes
    ----------
    device : "numpy"; "torch" for torch on the CPU; or a device of torch, such as "cuda" or "cuda:1"
    solver : see `langcortex.ridge.planner.make_plan`
    """

    device: str = "numpy"
    solver: str = "auto"

    def to_device(self, y: np.ndarray) -> Array:
        """Copy responses to the device where they are fitted."""
        if self.device == "numpy":
            return y
        import torch

        device = "cpu" if self.device == "torch" else self.device
        return torch.from_numpy(np.ascontiguousarray(y)).to(device)

    def chunk_size(self, plans: Sequence[Plan]) -> int:
        """Return how many targets to handle at once: what a processor's cache holds, or enough to keep a GPU busy."""
        size = chunk_size(plans)
        return size if self.device in ("numpy", "torch") else 16 * size

    def check_device(self) -> None:
        """Raise an error where the device is not available.

        Raises
        ------
        FitError
        """
        if self.device == "numpy":
            return
        try:
            self.to_device(np.zeros((1, 1))) + 1  # float64, which some devices lack
        except (ImportError, RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FitError(
                f'Responses cannot be fitted on \'{self.device}\': {reason}. Use fit.on = "numpy", "torch", or a device that torch has.'
            ) from error


DEFAULT = Backend()
