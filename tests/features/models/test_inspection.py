"""Whether a model can be placed is known before its weights are loaded."""

import pytest

from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.inspection import check_blocks, check_place
from langcortex.features.models.memory import ModelShape

LARGE = ModelShape(32, 4096, 8_030_000_000)


@pytest.mark.parametrize(
    ("device", "quantization", "seed", "sentence"),
    [
        ("cuda:9", None, None, "There is no GPU 'cuda:9'"),
        ("moon", None, None, "not on 'moon'"),
        ("cpu", "4bit", 0, "cannot be quantised"),
        ("cpu", None, None, "they need 32 GB, and this machine has 8 GB free"),
    ],
)
def test_a_model_that_cannot_be_placed_is_one_sentence(monkeypatch, device, quantization, seed, sentence):
    monkeypatch.setattr("langcortex.features.models.memory.free_main_memory", lambda: 8.0)
    with pytest.raises((ModelError, SettingsError), match=sentence):
        check_place("m", LARGE, "float32", device, quantization, seed)


def test_a_small_model_is_placed():
    check_place("m", ModelShape(2, 32, 100_000), "float32", "cpu", None, None)


def test_embeddings_have_no_heads():
    check_blocks("m", LARGE, [0, 1], ["heads"])
    check_blocks("m", LARGE, None, ["heads"])
    with pytest.raises(SettingsError, match="layer 0 has none"):
        check_blocks("m", LARGE, [0], ["heads"])
