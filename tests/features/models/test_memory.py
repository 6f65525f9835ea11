"""Memory: a model that cannot fit is an error before its weights are read."""

import pytest

from langcortex.errors import ModelError
from langcortex.features.models import memory
from langcortex.features.models.loading import load_model
from langcortex.features.models.memory import ModelShape, require_memory


def test_a_model_that_cannot_fit_is_an_error_before_it_is_read(folder, monkeypatch):
    eight = ModelShape(32, 4096, 8_030_000_000)
    monkeypatch.setattr(memory, "_free_memory", lambda device: (12.0, "this GPU"))
    with pytest.raises(ModelError) as caught:
        require_memory("base", eight, "bfloat16", None, "cuda")
    assert str(caught.value) == (
        "'base' has about 8.0 billion parameters: in bfloat16 they need 16 GB, and this GPU has 12 GB free. "
        "Use quantization = '8bit' or quantization = '4bit' or device = 'offload'."
    )
    require_memory("base", eight, "bfloat16", "4bit", "cuda")
    require_memory("base", eight, "bfloat16", None, "offload")
    monkeypatch.setattr(memory, "_free_memory", lambda device: (20.0, "this machine"))
    with pytest.raises(
        ModelError, match=r"need 32 GB, and this machine has 20 GB free. Use dtype = 'bfloat16' or"
    ):
        require_memory("base", eight, "float32", None, "cpu")
    monkeypatch.setattr(memory, "_free_memory", lambda device: (1e-6, "this machine"))
    with pytest.raises(ModelError, match=r"billion parameters.*Use device = 'offload'"):
        load_model(str(folder), device="cpu")
    monkeypatch.setattr(memory, "_free_memory", lambda device: (None, "mps"))
    require_memory("base", eight, "float32", None, "mps")


def test_the_free_main_memory_is_plausible():
    free = memory.free_main_memory()
    assert free is None or 0.01 < free < 1e5
