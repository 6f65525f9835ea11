"""Whether a model is all there: its files before they are read, its tensors after they were loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langcortex.errors import ModelError

CHECKPOINTS = ("model.safetensors", "pytorch_model.bin")  # in the order in which loaders look for them
TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "*.tiktoken",
)  # fmt: skip
POINTER = b"version https://git-lfs"
LONGEST_HEADER = 10**8  # bytes, as in the safetensors library
UNUSED = ("pooler.", "lm_head.")  # parts of a body's checkpoint that no layer passes through
BUFFERS = ("inv_freq", "masked_bias", "attn.bias", "attention.bias", "position_ids", "token_type_ids")


def check_folder(folder: Path, weights: bool = True) -> None:
    """Check that a model's folder has a configuration, a tokenizer and all of its weights, without loading them.

    Parameters
    ----------
    folder : of a model as transformers saves it
    weights : whether weights are needed; untrained models have none

    Raises
    ------
    ModelError : a file is missing or breaks off
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"The model folder {folder} has no config.json. Give the folder that holds it, with weights and tokenizer."
        )
    files = [path for pattern in TOKENIZERS for path in folder.glob(pattern)]
    if not files:
        raise ModelError(
            f"The model folder {folder} has no tokenizer (tokenizer.json or tokenizer.model). Save it there too: tokenizer.save_pretrained."
        )
    for path in files:
        _refuse_pointer(path)
    if weights:
        for path in _checkpoint_files(folder):
            _check_file(path)


def _checkpoint_files(folder: Path) -> list[Path]:
    """List the files of the weights that transformers would load."""
    for name in CHECKPOINTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _listed_files(index)
    files = sorted(path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    if not files:
        raise ModelError(
            f"The model folder {folder} has no weights (model.safetensors or pytorch_model.bin). Copy them, or set untrained_seed."
        )
    parts = [path for path in files if "-of-" in path.name]
    if parts:
        raise ModelError(
            f"The model folder {folder} has weights in several files ({parts[0].name}), but not their list, "
            "model.safetensors.index.json. Copy it too."
        )
    return files


def _listed_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [index.parent / Path(str(name)).name for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} is no list of weights. Copy or download it again.") from error
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        raise ModelError(
            f"The model folder {index.parent} lacks {len(missing)} of its {len(paths)} files of weights: "
            f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}. Copy or download them."
        )
    return paths


def _check_file(path: Path) -> None:
    """Check that a file of weights is as long as it says."""
    _refuse_pointer(path)
    if path.suffix == ".safetensors":
        is_whole = _is_whole_safetensors(path)
    else:
        with path.open("rb") as handle:
            is_archive = handle.read(2) == b"PK"
        is_whole = path.stat().st_size > 0 and (zipfile.is_zipfile(path) or not is_archive)
    if not is_whole:
        raise ModelError(f"The weights {path} break off or are damaged. Copy or download the file again.")


def _is_whole_safetensors(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            return False
        try:
            header = json.loads(handle.read(length))
            ends = [int(t["data_offsets"][1]) for name, t in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, IndexError, AttributeError, TypeError):
            return False
    return 8 + length + max(ends, default=0) == size


def _refuse_pointer(path: Path) -> None:
    """Refuse a file that Git LFS has not downloaded."""
    with path.open("rb") as handle:
        if handle.read(len(POINTER)) == POINTER:
            raise ModelError(f"{path} is a pointer of Git LFS, not the file itself. Run: git lfs pull")


def check_tensors(name: str, model: Any, info: Mapping[str, Any]) -> None:
    """Check that a checkpoint held all tensors of a model, in their shapes, and no others of its blocks.

    Tied weights are in the checkpoint once; heads and poolers that no layer passes through may be absent from a body,
    and heads may be in its checkpoint.

    Parameters
    ----------
    name : of the model, for messages
    model : as loaded, with or without its output head
    info : "missing_keys", "unexpected_keys" and "mismatched_keys", from transformers

    Raises
    ------
    ModelError : tensors are missing, of another shape, or unexpected
    """
    prefix = f"{getattr(model, 'base_model_prefix', '') or ''}."
    has_head = model.base_model is not model
    mismatched = sorted(
        str(key[0] if isinstance(key, tuple | list) else key) for key in info.get("mismatched_keys", ())
    )
    if mismatched:
        raise ModelError(
            f"The weights of '{name}' do not fit its configuration: {_listed(mismatched, 'tensor')} of another shape. "
            "Use the config.json that came with the weights."
        )
    unused = UNUSED[:1] if has_head else UNUSED
    absent = {str(key) for key in info.get("missing_keys", ())}
    present = {name for group in _tied_names(model) if not group <= absent for name in group}
    missing = sorted(key for key in absent - present if not key.removeprefix(prefix).startswith(unused))
    if missing:
        raise ModelError(
            f"The weights of '{name}' are not whole: {_listed(missing, 'tensor')} missing, and would be random. "
            "Copy or download the model again; for random weights set untrained_seed."
        )
    parts = {part for part, _ in model.base_model.named_children()}
    parts |= {part for part, _ in model.named_children()} if has_head else set()
    unexpected = sorted(
        key
        for key in map(str, info.get("unexpected_keys", ()))
        if key.removeprefix(prefix).split(".")[0] in parts
        and not key.removeprefix(prefix).startswith(unused)
        and not key.endswith(BUFFERS)
    )
    if unexpected:
        raise ModelError(
            f"The weights of '{name}' do not fit its configuration: {_listed(unexpected, 'tensor')} in the file and not in "
            "the model. Use the config.json that came with the weights."
        )


def _tied_names(model: Any) -> list[set[str]]:
    """Return the groups of names that are one parameter."""
    groups: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(name)
    return [group for group in groups.values() if len(group) > 1]


def _listed(names: Iterable[str], what: str, most: int = 3) -> str:
    """Return names as the subject of a sentence: "2 tensors (a, b) are"."""
    listed: Sequence[str] = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    verb = "is" if len(listed) == 1 else "are"
    return f"{len(listed)} {what}{'s' * (len(listed) != 1)} ({', '.join(listed[:most])}{more}) {verb}"
