"""A story through a model, once: everything asked for is taken in the same pass, kept run by run, and found again."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.cache import Store, digest
from langcortex.errors import SettingsError
from langcortex.features.models.attention import AttentionMaps, cell_labels
from langcortex.features.models.capture import OF_BLOCKS, PER_LAYER, read_batch
from langcortex.features.models.layers import Layers
from langcortex.features.models.loading import LanguageModel
from langcortex.features.models.next_word import NEXT, require_head
from langcortex.features.models.pooling import Words
from langcortex.features.models.tokens import (
    Frame,
    Passage,
    Window,
    audit_tokens,
    batches,
    encode_passage,
    make_frame,
    passages,
    windows_of,
)
from langcortex.features.table import COMBINE, Features
from langcortex.stimulus.story import Story

EXTRACTION = 2  # raised whenever the same settings would give other numbers
TAKE = (*PER_LAYER, *NEXT)

Entry = tuple[str, int]
"""A kind and a layer's number, 0 for what has no layers."""


@dataclass(frozen=True)
class Pace:
    """How fast a story is being read.

    Attributes
    ----------
    words, total : read so far, kept ones included; and in all
    tokens : read by the model so far, the frame and padding not counted
    seconds : since reading began
    seconds_left : until the last word, at the pace so far; NaN before the model has read a word
    """

    words: int
    total: int
    tokens: int
    seconds: float
    seconds_left: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second so far."""
        return self.tokens / self.seconds if self.seconds > 0 else float("nan")


def extract(
    story: Story,
    model: LanguageModel,
    *,
    layers: Sequence[int] | None = None,
    take: Sequence[str] = ("states",),
    context: str | int = "sentence",
    pool: str = "mean",
    bos: bool | None = None,
    prefix: str = "",
    suffix: str = "",
    chat: str = "",
    system: str = "",
    batch_tokens: int = 2048,
    store: Store | None = None,
    progress: Callable[[int], None] | None = None,
    pace: Callable[[Pace], None] | None = None,
) -> Layers:
    """Run a story through a model and keep, for every word, what happened inside.

    Parameters
    ----------
    story : the words; the model reads their text as it is written
    model : from `load_model`
    layers : which to keep, 0 … n_layers; all when None
    take : any of "states" (hidden states of the layers, a mean over the word's tokens), "heads" (what goes into each
        block's output projection of attention, the heads side by side), "mlp" (what each block's MLP gives),
        "attention" (maps from word to word; see `AttentionMaps`), "surprisal" (bits, the sum over the word's tokens)
        and "entropy" (bits, of what the model expects where the word begins); one pass gives all
    context : "sentence" shows the model each sentence alone; a number shows it the run's text so far, up to
        that many tokens (new tokens are read in windows of half that length, so each has at least half of it);
        "run" shows it the whole run at once
    pool : how words merge into sentences and scans later: "mean", "last", "sum" or "duration" (a mean weighted by
        the words' durations); surprisal is always summed, entropy averaged
    bos : begin every text with the tokenizer's beginning-of-text token; None does what the tokenizer does (for BERT,
        [CLS] in front and [SEP] behind)
    prefix, suffix : text before and after every text, such as an instruction; spaces are yours
    chat : "user" or "assistant" puts every text into that turn of the model's chat template
    system : the system's turn of the chat
    batch_tokens : tokens a forward pass, padding included
    store : where finished runs are kept and found again, layer by layer
    progress : called with the number of words done, after every batch
    pace : called with a `Pace`, after every batch

    Returns
    -------
    Layers, named ``"{model.name}/layer-07"``, ``heads-07``, ``mlp-07``, ``attention-07``, ``surprisal``, ``entropy``;
    rows are words (cells for attention). Tokens of BOS, prefix, suffix and chat belong to no word. Heads, MLPs and
    attention of the block that makes layer 7 are number 7; layer 0 has none.

    Raises
    ------
    ModelError : a word has no token, or the tokenizer gives no offsets
    SettingsError : a layer, kind or context that the model does not have
    """
    entries = _entries(model, layers, take)
    if pool not in COMBINE:
        raise SettingsError(f"Words merge by {', '.join(map(repr, COMBINE))}, not '{pool}'.")
    frame = make_frame(model.tokenizer, model.name, bos, prefix, suffix, chat, system)
    if {kind for kind, _ in entries} & set(NEXT):
        if not (frame.head or frame.before):
            raise SettingsError(
                "Nothing stands before the first word of a text, so it has no surprisal. Set bos = true, or give a prefix."
            )
        require_head(model)
    kept = store or Store(Path(tempfile.mkdtemp(prefix="langcortex-")))
    bases: dict[str, str] = {}
    by_run: dict[str, Mapping[str, Any]] = {}
    clock = _Clock(len(story), progress, pace)
    for run in story.runs:
        part = story.take([run])
        bases[run] = _base(part, model, context, frame)
        missing = [e for e in entries if _key(bases[run], part, e) not in kept]
        if missing:
            _read_run(part, model, missing, context, frame, batch_tokens, kept, bases[run], clock)
        clock.run_done(len(part))
        meta = kept.meta(_key(bases[run], part, entries[0]))
        by_run[run] = {**meta["audit"], "odd words": meta["odd"]}
    return _layers(story, model, entries, pool, kept, bases, by_run, own=store is None)


def _entries(model: LanguageModel, layers: Sequence[int] | None, take: Sequence[str]) -> list[Entry]:
    unknown = [kind for kind in take if kind not in TAKE]
    if unknown or not take:
        raise SettingsError(
            f"A model gives {', '.join(map(repr, TAKE))}"
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
                f"'{kind}' belongs to the blocks, which make layers 1 to {model.n_layers}; layer 0 has none."
            )
        entries += [(kind, number) for number in numbers]
    return entries


def _entry_name(entry: Entry) -> str:
    kind, number = entry
    return kind if kind in NEXT else f"{'layer' if kind == 'states' else kind}-{number:02d}"


def _base(part: Story, model: LanguageModel, context: str | int, frame: Frame) -> str:
    """Name a run's results by its text, the model and how it is read; neither batch nor device decides anything."""
    text, spans = part.text_of(0, len(part))
    units = part.sentence if context == "sentence" else np.array([])
    around = [frame.before, frame.after, list(frame.head), list(frame.tail)]
    settings = {"extraction": EXTRACTION, "context": context, "frame": around, "revision": model.revision}
    return digest(text, spans, units, settings)


def _key(base: str, part: Story, entry: Entry) -> str:
    # maps are cut into sentences, also where the model read on
    name = digest(base, part.sentence) if entry[0] == "attention" else base
    return f"{name}-{_entry_name(entry)}"


def _layers(
    story: Story,
    model: LanguageModel,
    entries: Sequence[Entry],
    pool: str,
    kept: Store,
    bases: Mapping[str, str],
    by_run: Mapping[str, Mapping[str, Any]],
    own: bool,
) -> Layers:
    names = {f"{model.name}/{_entry_name(e)}": e for e in entries}
    parts = (
        {run: story.take([run]) for run in story.runs} if any(k == "attention" for k, _ in entries) else {}
    )

    def arrays(entry: Entry, what: str) -> np.ndarray:
        keys = (_key(bases[run], parts.get(run, story), entry) for run in story.runs)
        return np.concatenate([kept.array(key, what) for key in keys])

    def maps(name: str) -> AttentionMaps:
        entry = names[name]
        values = arrays(entry, _entry_name(entry))
        return AttentionMaps(
            name, *cell_labels(story), values, story.ids, arrays(entry, "bos"), arrays(entry, "outside")
        )

    def read(name: str) -> Features:
        kind, _ = entry = names[name]
        if kind == "attention":
            return maps(name).lower().features(story)
        combine = {"surprisal": "sum", "entropy": "mean"}.get(kind, pool)
        values = arrays(entry, _entry_name(entry))
        return Features(name, story.ids, story.onset, story.duration, story.run, values, combine)

    counts: Counter[str] = Counter()
    for row in by_run.values():
        counts.update({k: n for k, n in row.items() if isinstance(n, int)})
    found = Layers(tuple(names), read, dict(counts), by_run, maps)
    if own:
        weakref.finalize(found, shutil.rmtree, kept.root, ignore_errors=True)
    return found


def _read_run(
    part: Story,
    model: LanguageModel,
    missing: Sequence[Entry],
    context: str | int,
    frame: Frame,
    batch_tokens: int,
    kept: Store,
    base: str,
    clock: _Clock,
) -> None:
    """Read one run and keep what is missing of it, each layer under a name of its own."""
    read = [
        encode_passage(part, a, b, model.tokenizer, model.name, frame) for a, b in passages(part, context)
    ]
    counts, odd = audit_tokens(part, read)
    windows = list(_windows(part, read, model, context))
    n_tokens = np.bincount(np.concatenate([p.pairs[:, 0] for p in read]), minlength=len(part))
    sentence = np.cumsum(np.append(False, part.sentence[1:] != part.sentence[:-1]))
    words = Words(n_tokens, sentence)
    for batch in batches([len(w.ids) for w in windows], batch_tokens):
        texts = [windows[i] for i in batch]
        _forward(model, texts, missing, words, _begins(model, frame, read))
        clock.batch_done(sum(int(w.new.sum()) for w in texts), int(n_tokens.sum()), len(part))
    for entry in missing:
        arrays = words.finished(*entry)
        first = next(iter(arrays))
        named = {(_entry_name(entry) if k == first else k): v for k, v in arrays.items()}
        kept.save(_key(base, part, entry), named, {"audit": counts, "odd": odd, "model": model.name})


def _windows(
    part: Story, read: Sequence[Passage], model: LanguageModel, context: str | int
) -> Iterator[Window]:
    for passage in read:
        try:
            yield from windows_of(passage, context, model.max_tokens)
        except SettingsError as error:
            if context != "run":
                raise
            raise SettingsError(f"'{part.runs[0]}', '{model.name}': {error}") from error


def _begins(model: LanguageModel, frame: Frame, read: Sequence[Passage]) -> bool:
    """Say whether every text begins with the beginning-of-text token."""
    tokenizer = model.tokenizer
    marks = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}
    return bool(read and read[0].head and read[0].head[0] in marks)


def _forward(
    model: LanguageModel, texts: Sequence[Window], entries: Sequence[Entry], words: Words, bos: bool
) -> None:
    """Run one batch through the model and pool what is wanted into words."""
    wanted: dict[str, list[int]] = {}
    for kind, number in entries:
        wanted.setdefault(kind, []).append(number)
    words.start(texts, bos, "attention" in wanted)
    last = read_batch(model, [w.ids for w in texts], wanted, words.take)
    if set(NEXT) & set(wanted):
        words.expect(model, texts, last)


class _Clock:
    """Counts words and tokens, and tells who wants to know."""

    def __init__(
        self, total: int, progress: Callable[[int], None] | None, pace: Callable[[Pace], None] | None
    ) -> None:
        self.total, self.progress, self.pace = total, progress, pace
        self.began = time.perf_counter()
        self.words = self.fresh = self.tokens = 0
        self.of_run = self.told = 0  # tokens and words of the run in progress

    def batch_done(self, tokens: int, all_tokens: int, words: int) -> None:
        """Note a batch; the run's last is told when the run is kept."""
        self.tokens += tokens
        self.of_run += tokens
        if self.of_run < all_tokens:
            self._tell(words * self.of_run // all_tokens - self.told)

    def run_done(self, words: int) -> None:
        """Note a run, read now or kept before."""
        self._tell(words - self.told)
        self.of_run = self.told = 0

    def _tell(self, words: int) -> None:
        self.words += words
        self.told += words
        self.fresh += words if self.of_run else 0
        if self.progress and words:
            self.progress(words)
        if self.pace:
            seconds = time.perf_counter() - self.began
            left = (self.total - self.words) * seconds / self.fresh if self.fresh else float("nan")
            self.pace(Pace(self.words, self.total, self.tokens, seconds, left))
