"""Whether a model can be placed as a study says, before its weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence

from langcortex.errors import SettingsError
from langcortex.features.models.loading import check_options, choose_device
from langcortex.features.models.memory import ModelShape, require_memory


def check_place(
    name: str,
    shape: ModelShape,
    dtype: str,
    device: str,
    quantization: str | None,
    untrained_seed: int | None,
) -> None:
    """Check that a model's options go together, that its device and packages are there, and that it fits the memory.

    Parameters
    ----------
    name : of the model
    shape : its size
    dtype, device, quantization, untrained_seed : as in `load_model`

    Raises
    ------
    ModelError, SettingsError : as `load_model`
    """
    check_options(dtype, device, quantization, untrained_seed)
    require_memory(name, shape, dtype, quantization, choose_device(device))


def check_blocks(name: str, shape: ModelShape, layers: Sequence[int] | None, take: Sequence[str]) -> None:
    """Check that parts of blocks are taken from blocks.

    Raises
    ------
    SettingsError : heads or MLPs of the embeddings alone
    """
    blocks = [kind for kind in take if kind in ("heads", "mlp")]
    if blocks and layers is not None and not any(layers):
        raise SettingsError(
            f"features.take: '{blocks[0]}' belongs to the blocks of '{name}', layers 1 to {shape.n_layers}; layer 0 has none."
        )
