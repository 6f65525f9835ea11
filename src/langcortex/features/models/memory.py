"""How large a model is, and whether it fits, before its weights are read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langcortex.errors import ModelError

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.1, "4bit": 0.65}
"""Bytes a parameter; quantised models keep their embeddings in 16 bits and their scales beside the weights."""


@dataclass(frozen=True)
class ModelShape:
    """How large a model is.

    Attributes
    ----------
    n_layers : blocks
    width : features of a hidden state
    parameters : of the blocks and the embeddings, about
    """

    n_layers: int
    width: int
    parameters: int


def shape_of(config: Any) -> ModelShape:
    """Count layers, width and parameters from a text model's configuration, without its weights."""
    layers, width = int(config.num_hidden_layers), int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    return ModelShape(
        layers, width, layers * (4 * width * width + 3 * width * inner) + int(config.vocab_size) * width
    )


def gigabytes_needed(shape: ModelShape, dtype: str, quantization: str | None = None) -> float:
    """Estimate the memory of a model's weights in gigabytes (10⁹ bytes).

    >>> round(gigabytes_needed(ModelShape(32, 4096, 8_030_000_000), "bfloat16"))
    16
    """
    return shape.parameters * BYTES[quantization or dtype] / 1e9


def require_memory(name: str, shape: ModelShape, dtype: str, quantization: str | None, device: str) -> None:
    """Refuse a model that cannot fit, and say what would.

    Raises
    ------
    ModelError : its weights need more memory than is free
    """
    if device == "offload":
        return
    free, place = _free(device)
    needed = gigabytes_needed(shape, dtype, quantization)
    if free is None or needed <= free:
        return
    ways = [
        f"{key} = '{value}'"
        for key, value in (("dtype", "bfloat16"), ("quantization", "8bit"), ("quantization", "4bit"))
        if BYTES[value] < BYTES[quantization or dtype] and shape.parameters * BYTES[value] / 1e9 <= free
    ]
    ways = [*ways[:2], "device = 'offload'"]
    raise ModelError(
        f"'{name}' has about {shape.parameters / 1e9:.1f} billion parameters: in {quantization or dtype} they need "
        f"{needed:.0f} GB, and {place} has {free:.0f} GB free. Use {' or '.join(ways)}."
    )


def _free(device: str) -> tuple[float | None, str]:
    """Give the free memory of a device in gigabytes, None where it cannot be known."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0] / 1e9, "this GPU"
    if device == "spread" and torch.cuda.is_available():
        total = sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
        return (total + (main_memory() or 0.0) * 1e9) / 1e9, "the GPUs and this machine together"
    if device in ("cpu", "spread"):
        return main_memory(), "this machine"
    return None, device


def main_memory() -> float | None:
    """Give what is free of the main memory, in gigabytes."""
    table = Path("/proc/meminfo")
    if table.is_file():
        for line in table.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 / 1e9
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (ValueError, OSError, AttributeError):
        return None
