"""The size of a model, and whether it fits into memory, before its weights are read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langcortex.errors import ModelError

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.1, "4bit": 0.65}
"""Bytes per parameter; quantised models have embeddings of 16 bits, and scales beside the weights."""


@dataclass(frozen=True)
class ModelShape:
    """The size of a model.

    Attributes
    ----------
    n_layers : number of blocks
    width : number of features of a hidden state
    parameters : approximate number in blocks and embeddings
    max_tokens : the length of the longest text that it can read, in tokens; 0 where that is unknown
    """

    n_layers: int
    width: int
    parameters: int
    max_tokens: int = 0


def compute_shape(config: Any) -> ModelShape:
    """Compute layers, width and parameters from a text model's configuration."""
    layers, width = int(config.num_hidden_layers), int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    return ModelShape(
        layers, width, layers * (4 * width * width + 3 * width * inner) + int(config.vocab_size) * width
    )


def estimate_gigabytes(shape: ModelShape, dtype: str, quantization: str | None = None) -> float:
    """Estimate the memory of a model's weights in gigabytes (10⁹ bytes).

    >>> round(estimate_gigabytes(ModelShape(32, 4096, 8_030_000_000), "bfloat16"))
    16
    """
    return shape.parameters * BYTES[quantization or dtype] / 1e9


def require_memory(name: str, shape: ModelShape, dtype: str, quantization: str | None, device: str) -> None:
    """Raise an error where a model does not fit into memory, with settings that do.

    Raises
    ------
    ModelError : its weights need more memory than is free
    """
    if device == "offload":
        return
    free, place = _free_memory(device)
    needed = estimate_gigabytes(shape, dtype, quantization)
    if free is None or needed <= free:
        return
    settings = [
        f"{key} = '{value}'"
        for key, value in (("dtype", "bfloat16"), ("quantization", "8bit"), ("quantization", "4bit"))
        if BYTES[value] < BYTES[quantization or dtype] and shape.parameters * BYTES[value] / 1e9 <= free
    ]
    settings = [*settings[:2], "device = 'offload'"]
    raise ModelError(
        f"'{name}' has about {shape.parameters / 1e9:.1f} billion parameters: in {quantization or dtype} they need "
        f"{needed:.0f} GB, and {place} has {free:.0f} GB free. Use {' or '.join(settings)}."
    )


def _free_memory(device: str) -> tuple[float | None, str]:
    """Return the free memory of a device in gigabytes, None where it is unknown, and the device in words."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0] / 1e9, "this GPU"
    if device == "spread" and torch.cuda.is_available():
        total = sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
        return (total + (free_main_memory() or 0.0) * 1e9) / 1e9, "the GPUs and this machine together"
    if device in ("cpu", "spread"):
        return free_main_memory(), "this machine"
    return None, device


def free_main_memory() -> float | None:
    """Return the free main memory in gigabytes, None where it is unknown."""
    table = Path("/proc/meminfo")
    if table.is_file():
        for line in table.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 / 1e9
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (ValueError, OSError, AttributeError):
        return None
