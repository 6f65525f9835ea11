"""Features of a story from a model: one pass computes all kinds, and results are stored run by run."""

from __future__ import annotations

import functools
import importlib.metadata
import shutil
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.cache import Store, digest
from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.attention import AttentionMaps, label_cells
from langcortex.features.models.capture import OF_BLOCKS, PER_LAYER, read_batch
from langcortex.features.models.layers import Layers
from langcortex.features.models.loading import LanguageModel
from langcortex.features.models.next_word import NEXT, require_head
from langcortex.features.models.pooling import WordPool
from langcortex.features.models.tokens import (
    Frame,
    Passage,
    Window,
    audit_tokens,
    cut_passages,
    cut_run_windows,
    encode_passage,
    make_batches,
    make_frame,
)
from langcortex.features.table import COMBINE, Features
from langcortex.paths import as_path
from langcortex.stimulus.story import Story

EXTRACTION = 3  # raised whenever the same settings yield other numbers
TAKE = (*PER_LAYER, *NEXT)

Entry = tuple[str, int]
"""A kind and a layer's number, 0 for what has no layers."""


@dataclass(frozen=True)
class Pace:
    """Speed at which a story is read.

    Attributes
    ----------
    words : read so far, or found in the store
    total : words of the story
    tokens : read by the model so far, without frame and padding
    seconds : since reading began
    seconds_left : estimated from the speed so far; NaN before the model has read a word
    """

    words: int
    total: int
    tokens: int
    seconds: float
    seconds_left: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second so far."""
        return self.tokens / self.seconds if self.seconds > 0 else float("nan")


def extract(
    story: Story,
    model: LanguageModel,
    *,
    layers: Sequence[int] | None = None,
    take: Sequence[str] = ("states",),
    context: str | int = "sentence",
    pool: str = "mean",
    bos: bool | str | None = None,
    prefix: str = "",
    suffix: str = "",
    chat: str = "",
    system: str = "",
    batch_tokens: int = 2048,
    store: Store | Path | str | None = None,
    progress: Callable[[int], None] | None = None,
    pace: Callable[[Pace], None] | None = None,
) -> Layers:
    """Run a story through a model and return features of every word from inside the model.

    Parameters
    ----------
    story : the words; the model reads their text as it is written
    model : from `load_model`
    layers : from 0 to n_layers; all when None
    take : any of `TAKE`: "states" (hidden states, the mean over a word's tokens), "heads" (the input of each block's
        attention output projection), "mlp" (the output of each block's MLP), "attention" (maps between words, see
        `AttentionMaps`), "surprisal" (bits, the sum over a word's tokens) and "entropy" (bits, before a word); one
        pass computes all
    context : "sentence": each sentence alone; a number: the run's text so far, up to that many tokens (new tokens are
        read in windows of half that length, so each has at least half of it); "run": the whole run at once
    pool : how words merge into sentences and scans later: "mean", "last", "sum" or "duration" (a mean weighted by
        the words' durations); surprisal is always summed, entropy averaged
    bos, prefix, suffix, chat, system : what stands around every text, see `make_frame`
    batch_tokens : tokens per forward pass, padding included
    store : where results of complete runs are saved and looked up, layer by layer: a `Store` or a folder
    progress : called with the number of new words after every batch
    pace : called with a `Pace` after every batch

    Returns
    -------
    Layers, named ``"{model.name}/layer-07"``, ``heads-07``, ``mlp-07``, ``attention-07``, ``surprisal``, ``entropy``;
    rows are words (cells for attention). Tokens of BOS, prefix, suffix and chat belong to no word. Heads, MLPs and
    attention of the block whose output is layer 7 have number 7; layer 0 has none.

    Raises
    ------
    ModelError : a word has no token, or the tokenizer does not locate its tokens in the text
    SettingsError : a layer, kind or context that the model does not have
    """
    entries = _select_entries(model, layers, take)
    if pool not in COMBINE:
        raise SettingsError(f"Words merge by {', '.join(map(repr, COMBINE))}, not '{pool}'.")
    frame = make_frame(model.tokenizer, model.name, bos, prefix, suffix, chat, system)
    _check_next_word(entries, frame, model)
    if isinstance(store, Path | str):
        store = Store(as_path(store))
    results = store or Store(Path(tempfile.mkdtemp(prefix="langcortex-")))
    job = _Extraction(story, model, entries, context, frame, results)
    job.read_runs(batch_tokens, _Clock(len(story), progress, pace))
    out = job.collect_layers(pool)
    if store is None:
        weakref.finalize(out, shutil.rmtree, results.root, ignore_errors=True)
    return out


def _select_entries(model: LanguageModel, layers: Sequence[int] | None, take: Sequence[str]) -> list[Entry]:
    """Check kinds and layers, and list what is to be extracted."""
    unknown = [kind for kind in take if kind not in TAKE]
    if unknown or not take:
        raise SettingsError(
            f"A model has {', '.join(map(repr, TAKE))}"
            + (f", not '{unknown[0]}'." if unknown else "; take one.")
        )
    chosen = tuple(range(model.n_layers + 1)) if layers is None else tuple(sorted(set(layers)))
    wrong = [k for k in chosen if not 0 <= k <= model.n_layers]
    if wrong:
        raise SettingsError(f"'{model.name}' has layers 0 to {model.n_layers}; there is no layer {wrong[0]}.")
    entries: list[Entry] = []
    for kind in dict.fromkeys(take):
        numbers = [0] if kind in NEXT else [k for k in chosen if k or kind not in OF_BLOCKS]
        if not numbers:
            raise SettingsError(
                f"'{kind}' belongs to the blocks, whose outputs are layers 1 to {model.n_layers}; layer 0 has none."
            )
        entries += [(kind, number) for number in numbers]
    return entries


def _check_next_word(entries: Sequence[Entry], frame: Frame, model: LanguageModel) -> None:
    """Check that surprisal and entropy are defined for every word, where they are to be extracted."""
    if not {kind for kind, _ in entries} & set(NEXT):
        return
    if not (frame.head or frame.before):
        raise SettingsError(
            "Nothing stands before the first word of a text, so it has no surprisal. Set bos = true, or add a prefix."
        )
    require_head(model)


def _entry_name(entry: Entry) -> str:
    kind, number = entry
    return kind if kind in NEXT else f"{'layer' if kind == 'states' else kind}-{number:02d}"


def _run_digest(part: Story, model: LanguageModel, context: str | int, frame: Frame) -> str:
    """Return the name of a run's results: its text, the model and how it is read, without batches and device."""
    text, spans = part.join_words(0, len(part))
    units = part.sentence if context == "sentence" else np.array([])
    around = [frame.before, frame.after, list(frame.head), list(frame.tail)]
    settings = {
        "extraction": EXTRACTION,
        "versions": deciding_versions(),
        "context": context,
        "frame": around,
        "revision": model.revision,
    }
    return digest(text, spans, units, settings)


@functools.cache
def deciding_versions() -> dict[str, str]:
    """Return the versions of the packages that decide what a model computes."""
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers")}


@dataclass(frozen=True, eq=False)
class _Extraction:
    """What is extracted from a story, how the model reads it, and where results are stored."""

    story: Story
    model: LanguageModel
    entries: Sequence[Entry]
    context: str | int
    frame: Frame
    results: Store

    @cached_property
    def parts(self) -> dict[str, Story]:
        """The story's runs, one by one."""
        return {run: self.story.take([run]) for run in self.story.runs}

    @cached_property
    def digests(self) -> dict[str, str]:
        """The name of each run's results."""
        return {
            run: _run_digest(part, self.model, self.context, self.frame) for run, part in self.parts.items()
        }

    @cached_property
    def map_digests(self) -> dict[str, str]:
        """The name of each run's attention maps, which also depend on sentences where the context does not."""
        return {run: digest(self.digests[run], part.sentence) for run, part in self.parts.items()}

    def key(self, run: str, entry: Entry) -> str:
        """Return the name of one result of one run in the store."""
        digests = self.map_digests if entry[0] == "attention" else self.digests
        return f"{digests[run]}-{_entry_name(entry)}"

    def read_runs(self, batch_tokens: int, clock: _Clock) -> None:
        """Read the runs whose results are not all in the store."""
        for run, part in self.parts.items():
            missing = [entry for entry in self.entries if not self._is_stored(run, entry)]
            if missing:
                self._read_run(run, missing, batch_tokens, clock)
            clock.add_run(len(part))

    def _is_stored(self, run: str, entry: Entry) -> bool:
        """Return whether a result is in the store; a damaged one is removed, while the model is here to compute it again."""
        return self.results.check(self.key(run, entry), None, ("audit", "odd"))

    def _read_run(self, run: str, missing: Sequence[Entry], batch_tokens: int, clock: _Clock) -> None:
        """Read one run, and save each missing layer under a name of its own."""
        part, model = self.parts[run], self.model
        read = [
            encode_passage(part, a, b, model.tokenizer, model.name, self.frame)
            for a, b in cut_passages(part, self.context)
        ]
        counts, odd = audit_tokens(part, read)
        windows = [
            window
            for passage in read
            for window in cut_run_windows(run, passage, model.name, self.context, model.max_tokens)
        ]
        n_tokens = np.bincount(np.concatenate([p.pairs[:, 0] for p in read]), minlength=len(part))
        sentence = np.cumsum(np.append(False, part.sentence[1:] != part.sentence[:-1]))
        words = WordPool(n_tokens, sentence)
        bos = _begins_with_bos(model, read)
        for batch in make_batches([len(w.ids) for w in windows], batch_tokens):
            texts = [windows[i] for i in batch]
            _forward(model, texts, missing, words, bos)
            clock.add_batch(sum(int(w.new.sum()) for w in texts), int(n_tokens.sum()), len(part))
        pooled = {entry: words.pop_layer(*entry) for entry in missing}
        _require_finite(model, run, pooled)
        for entry, arrays in pooled.items():
            first = next(iter(arrays))
            named = {(_entry_name(entry) if k == first else k): v for k, v in arrays.items()}
            self.results.save(self.key(run, entry), named, {"audit": counts, "odd": odd, "model": model.name})

    def collect_layers(self, pool: str) -> Layers:
        """Return the layers of the whole story, which read the store when they are looked up."""
        story = self.story
        names = {f"{self.model.name}/{_entry_name(e)}": e for e in self.entries}

        def read_maps(name: str) -> AttentionMaps:
            entry = names[name]
            values, bos, outside = (self._load(entry, k) for k in (_entry_name(entry), "bos", "outside"))
            return AttentionMaps(name, *label_cells(story), values, story.ids, bos, outside)

        def read(name: str) -> Features:
            kind, _ = entry = names[name]
            if kind == "attention":
                return read_maps(name).lower().to_features(story)
            combine = {"surprisal": "sum", "entropy": "mean"}.get(kind, pool)
            values = self._load(entry, _entry_name(entry))
            return Features(name, story.ids, story.onset, story.duration, story.run, values, combine)

        by_run = self._audits()
        counts: Counter[str] = Counter()
        for row in by_run.values():
            counts.update({k: n for k, n in row.items() if isinstance(n, int)})
        return Layers(tuple(names), read, dict(counts), by_run, read_maps)

    def _load(self, entry: Entry, array: str) -> np.ndarray:
        """Concatenate an array of all runs."""
        return np.concatenate([self.results.array(self.key(run, entry), array) for run in self.parts])

    def _audits(self) -> dict[str, Mapping[str, Any]]:
        """Return the audit of each run's tokens, as it was saved with the run's first result."""
        metas = {run: self.results.meta(self.key(run, self.entries[0])) for run in self.parts}
        return {run: {**meta["audit"], "odd words": meta["odd"]} for run, meta in metas.items()}


def _require_finite(model: LanguageModel, run: str, pooled: Mapping[Entry, Mapping[str, np.ndarray]]) -> None:
    """Refuse states that are not finite, at the first run that a model reads.

    Raises
    ------
    ModelError : a layer has NaN or infinite values
    """
    for entry, arrays in pooled.items():
        if all(np.isfinite(values).all() for values in arrays.values()):
            continue
        dtype = str(next(model.body.parameters()).dtype).removeprefix("torch.")
        fix = {
            "float16": 'Numbers above 65,504 overflow in float16: use dtype = "bfloat16".',
            "bfloat16": 'Use dtype = "float32", or copy its weights again.',
        }.get(dtype, "Its weights may be damaged: copy or download them again.")
        raise ModelError(
            f"'{model.name}' gives values that are not finite in {_entry_name(entry)} of run '{run}' ({dtype}). {fix}"
        )


def _begins_with_bos(model: LanguageModel, read: Sequence[Passage]) -> bool:
    """Return whether every text begins with the beginning-of-text token."""
    tokenizer = model.tokenizer
    marks = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}
    return bool(read and read[0].head and read[0].head[0] in marks)


def _forward(
    model: LanguageModel, texts: Sequence[Window], entries: Sequence[Entry], words: WordPool, bos: bool
) -> None:
    """Run one batch through the model and pool its tokens into words."""
    numbers: dict[str, list[int]] = {}
    for kind, number in entries:
        numbers.setdefault(kind, []).append(number)
    words.start_batch(texts, bos, "attention" in numbers)
    last = read_batch(model, [w.ids for w in texts], numbers, words.add)
    if set(NEXT) & set(numbers):
        words.add_next_word(model, texts, last)


class _Clock:
    """Counts words and tokens, and reports them to the callbacks."""

    def __init__(
        self, total: int, progress: Callable[[int], None] | None, pace: Callable[[Pace], None] | None
    ) -> None:
        self.total, self.progress, self.pace = total, progress, pace
        self.start = time.perf_counter()
        self.words = self.words_read = self.tokens = 0
        self.run_tokens = self.run_words = 0  # of the run in progress

    def add_batch(self, tokens: int, all_tokens: int, words: int) -> None:
        """Count a batch; the run's last batch is reported when the run is complete."""
        self.tokens += tokens
        self.run_tokens += tokens
        if self.run_tokens < all_tokens:
            self._report(words * self.run_tokens // all_tokens - self.run_words)

    def add_run(self, words: int) -> None:
        """Count a complete run, read now or earlier."""
        self._report(words - self.run_words)
        self.run_tokens = self.run_words = 0

    def _report(self, words: int) -> None:
        self.words += words
        self.run_words += words
        self.words_read += words if self.run_tokens else 0
        if self.progress and words:
            self.progress(words)
        if self.pace:
            seconds = time.perf_counter() - self.start
            left = (self.total - self.words) * seconds / self.words_read if self.words_read else float("nan")
            self.pace(Pace(self.words, self.total, self.tokens, seconds, left))
