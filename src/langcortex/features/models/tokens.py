"""Words and tokens: which tokens belong to a word, the text around them, and the windows that a model reads."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langcortex.errors import ModelError, SettingsError
from langcortex.stimulus.story import Story

MANY = 6  # tokens: words with as many are listed as odd
_PLACEHOLDER = "\u27e6here\u27e7"  # replaces the story while a chat template is filled
_CLOCK = threading.Lock()  # one template is filled at a time
TODAY = datetime.datetime(2024, 7, 26)
"""The date that every chat template is filled with, so that features are the same on another day: Llama 3.1's own default."""


@dataclass(frozen=True)
class Frame:
    """Text and tokens around every text that a model reads. They belong to no word.

    Attributes
    ----------
    before, after : text, such as an instruction or the headers of a chat
    head, tail : tokens around this text, such as the beginning-of-text token
    date : which a chat template wrote as today's, "2024-07-26"; "" where it wrote none
    """

    before: str = ""
    after: str = ""
    head: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()
    date: str = ""


@dataclass(frozen=True)
class FrameText:
    """What stands around every text that a model reads, in words.

    Attributes
    ----------
    first, last : the tokens that the tokenizer adds, such as ``"<s>"`` or BERT's ``"[CLS]"`` and ``"[SEP]"``; "" for none
    before, after : the text, a beginning-of-text token that the chat template writes left out
    date : as in `Frame`
    """

    first: str = ""
    before: str = ""
    after: str = ""
    last: str = ""
    date: str = ""

    @property
    def summary(self) -> str:
        """One line for a reader."""
        parts = [f"texts begin with '{self.first}'" if self.first else "texts begin with no special token"]
        parts += [f"before them {_short(self.before)}"] if self.before else []
        parts += [f"after them {_short(self.after)}"] if self.after else []
        parts += [f"they end with '{self.last}'"] if self.last else []
        parts += [f"the template's date is always {self.date}"] if self.date else []
        return ", ".join(parts)

    def differences(self, frame: FrameText) -> list[str]:
        """List what this frame has and another has not; tokens of the same role with other names are the same."""
        out = []
        for what, a, b in (
            ("beginning-of-text token", self.first, frame.first),
            ("end-of-text token", self.last, frame.last),
        ):
            if bool(a) != bool(b):
                out.append(f"{what} ({a or 'none'} and {b or 'none'})")
        out += ["text in front of the story"] if self.before != frame.before else []
        out += ["text behind the story"] if self.after != frame.after else []
        return out


def _short(text: str, most: int = 60) -> str:
    start = text if len(text) <= most else f"{text[: most - 1]}…"
    return repr(start)


@dataclass(frozen=True, eq=False)
class Passage:
    """Consecutive words as tokens of a model.

    Attributes
    ----------
    ids : tokens of the words and of the text between them
    head, tail : tokens of the frame
    pairs : (n_pairs, 2) word (row of the run) and token (index into `ids`) that belong together
    n_lent : number of words without a token of their own, which share a neighbour's
    """

    ids: list[int]
    head: list[int]
    tail: list[int]
    pairs: np.ndarray
    n_lent: int


@dataclass(frozen=True, eq=False)
class Window:
    """One text that the model reads.

    Attributes
    ----------
    ids : tokens, those of the frame included
    pairs : (n_pairs, 2) word (row of the run) and token (index into `ids`) that belong together
    new : (n_pairs,) bool, whether the token's features come from this window
    first : (n_pairs,) bool, whether it is the first token of its word
    n_head : number of tokens before those of the words
    """

    ids: list[int]
    pairs: np.ndarray
    new: np.ndarray
    first: np.ndarray
    n_head: int


def make_frame(
    tokenizer: Any,
    name: str,
    bos: bool | str | None = None,
    prefix: str = "",
    suffix: str = "",
    chat: str = "",
    system: str = "",
) -> Frame:
    """Make the frame around every text that a model reads.

    Parameters
    ----------
    tokenizer, name : the model's
    bos : begin with the beginning-of-text token; None and "tokenizer" do what the tokenizer (or the chat template) does
    prefix, suffix : text before and after, spaces included
    chat : "user" puts prefix, story and suffix into the user's turn of the model's chat template; "assistant"
        makes the prefix the user's turn and the story the answer; "" uses no template
    system : the system's turn of the chat

    Raises
    ------
    ModelError : the tokenizer has no beginning-of-text token, or no chat template that leaves the story unchanged
    SettingsError : an unknown kind of chat
    """
    if isinstance(bos, str):
        if bos != "tokenizer":
            raise SettingsError(f"features.bos is true, false or 'tokenizer', not '{bos}'.")
        bos = None
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    if bos and first is None:
        raise ModelError(f"The tokenizer of '{name}' has no beginning-of-text token. Set bos = false.")
    if chat:
        before, after, date = _fill_chat(tokenizer, name, prefix, suffix, chat, system)
        bos_text = tokenizer.bos_token or ""
        if bos_text and before.startswith(bos_text) and bos is False:
            before = before.removeprefix(bos_text)
        elif bos and not (bos_text and before.startswith(bos_text)):
            return Frame(before, after, (int(first),), date=date)
        return Frame(before, after, date=date)
    if system:
        raise SettingsError("features.system needs a chat. Set features.chat = 'user' or 'assistant'.")
    if bos is False:
        return Frame(prefix, suffix)
    head, tail = _special_tokens(tokenizer)
    if bos and (not head or head[0] != first):
        head = (int(first), *head)
    return Frame(prefix, suffix, head, tail)


def describe_frame(frame: Frame, tokenizer: Any) -> FrameText:
    """Describe a frame in words, tokens by their names."""
    first, last = (" ".join(tokenizer.convert_ids_to_tokens(list(ids))) for ids in (frame.head, frame.tail))
    before, bos = frame.before, tokenizer.bos_token or ""
    if not first and bos and before.startswith(bos):
        first, before = bos, before.removeprefix(bos)
    return FrameText(first, before, frame.after, last, frame.date)


def _special_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens that the tokenizer adds before and after a text: BOS, or BERT's [CLS] and [SEP]."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a")["input_ids"]
    for start in range(len(framed) - len(bare) + 1):
        stop = start + len(bare)
        if framed[start:stop] == bare:
            return tuple(map(int, framed[:start])), tuple(map(int, framed[stop:]))
    return (), ()


def _fill_chat(
    tokenizer: Any, name: str, prefix: str, suffix: str, chat: str, system: str
) -> tuple[str, str, str]:
    """Fill the chat template, and return the text before and after the story, and the date that it wrote."""
    if chat not in ("user", "assistant"):
        raise SettingsError(
            f"A chat puts the story into the turn of the 'user' or the 'assistant', not '{chat}'."
        )
    turns = [{"role": "system", "content": system}] if system else []
    if chat == "user":
        turns.append({"role": "user", "content": prefix + _PLACEHOLDER + suffix})
    else:
        turns.append({"role": "user", "content": prefix})
        turns.append({"role": "assistant", "content": _PLACEHOLDER + suffix})
    date_string = TODAY.strftime("%d %b %Y")
    try:
        with _fixed_date() as calls:
            written = str(tokenizer.apply_chat_template(turns, tokenize=False, date_string=date_string))
    except Exception as error:  # templates are programs that come with a model, and raise errors of any kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"The chat template of '{name}' cannot be filled ({reason[:160]}). Use a model with one, or leave features.chat out."
        ) from error
    if written.count(_PLACEHOLDER) != 1:
        raise ModelError(
            f"The chat template of '{name}' does not repeat the story exactly once. Use features.prefix instead of features.chat."
        )
    before, _, after = written.partition(_PLACEHOLDER)
    is_dated = bool(calls) or date_string in before + after
    return before, after, TODAY.date().isoformat() if is_dated else ""


@contextlib.contextmanager
def _fixed_date() -> Iterator[list[str]]:
    """Let the clock of chat templates stand still, and list its calls: transformers takes no other for ``strftime_now``."""
    from transformers.utils import chat_template_utils

    calls: list[str] = []

    class FixedDate(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> FixedDate:
            calls.append("now")
            return cls(TODAY.year, TODAY.month, TODAY.day, tzinfo=tz)

    with _CLOCK:
        clock = chat_template_utils.datetime
        chat_template_utils.datetime = FixedDate
        try:
            yield calls
        finally:
            chat_template_utils.datetime = clock


def cut_passages(part: Story, context: str | int) -> list[tuple[int, int]]:
    """Return the passages of a run that the model reads separately: first word, and the one after the last."""
    if context != "sentence":
        return [(0, len(part))]
    edges = np.concatenate([[0], np.cumsum(part.sentences.n_words)])
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def encode_passage(part: Story, first: int, stop: int, tokenizer: Any, name: str, frame: Frame) -> Passage:
    """Turn the words `first` to `stop` (exclusive) of a run into tokens, and assign tokens to words by characters.

    Raises
    ------
    ModelError : a word has no token
    """
    text, spans = part.join_words(first, stop)
    encoded = tokenizer(
        frame.before + text + frame.after, add_special_tokens=False, return_offsets_mapping=True
    )
    offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    begin, end = len(frame.before), len(frame.before) + len(text)
    inside = np.flatnonzero((offsets[:, 1] > begin) & (offsets[:, 0] < end))
    a = 0 if not frame.before or not len(inside) else int(inside[0])
    b = len(offsets) if not frame.after or not len(inside) else int(inside[-1]) + 1
    try:
        owner, lent = assign_tokens(spans, offsets[a:b] - begin, np.zeros(b - a, dtype=bool))
    except ModelError as error:
        row = first + int(str(error).split()[1])
        raise ModelError(
            f"The tokenizer of '{name}' leaves word '{part.ids[row]}' ({str(part.text[row])!r}) without a token. "
            "Correct the word in the story, or use another model."
        ) from error
    ids = list(encoded["input_ids"])
    owned = np.stack([owner, np.arange(len(owner))], axis=1)[owner >= 0]
    pairs = np.concatenate([owned, lent]) + np.array([first, 0])
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return Passage(ids[a:b], [*frame.head, *ids[:a]], [*ids[b:], *frame.tail], pairs, len(lent))


def audit_tokens(part: Story, read: Sequence[Passage]) -> tuple[dict[str, int], list[str]]:
    """Count how the tokenizer splits a run's words, and list odd cases.

    Returns
    -------
    counts : words, tokens, words of several tokens, words sharing a token, tokens of no word
    odd : words that share a token with a neighbour or are split into many, each with its id
    """
    n = len(part)
    tokens = np.zeros(n, dtype=np.int64)
    shares = np.zeros(n, dtype=bool)
    no_word = 0
    for passage in read:
        tokens += np.bincount(passage.pairs[:, 0], minlength=n)
        owners = np.bincount(passage.pairs[:, 1], minlength=len(passage.ids))
        no_word += int((owners == 0).sum())
        shares[passage.pairs[owners[passage.pairs[:, 1]] > 1, 0]] = True
    counts = {
        "words": n,
        "tokens": sum(len(p.ids) for p in read),
        "words of several tokens": int((tokens > 1).sum()),
        "words sharing a token": sum(p.n_lent for p in read),
        "tokens of no word": no_word,
    }
    odd = [
        f"{part.ids[i]} {str(part.text[i])!r}: shares a token with a neighbour"
        for i in np.flatnonzero(shares)
    ]
    odd += [
        f"{part.ids[i]} {str(part.text[i])!r}: {tokens[i]} tokens" for i in np.flatnonzero(tokens >= MANY)
    ]
    return counts, odd


def cut_windows(passage: Passage, context: str | int, longest: int) -> Iterator[Window]:
    """Cut a passage into the texts that the model reads, each with the frame around it."""
    n_head = len(passage.head)
    word, token = passage.pairs.T
    first = np.append(True, word[1:] != word[:-1])[: len(word)]
    for start, new, stop in cut_token_windows(
        len(passage.ids), context, longest - n_head - len(passage.tail)
    ):
        ids = passage.head + passage.ids[start:stop] + passage.tail
        inside = (token >= start) & (token < stop)
        pairs = passage.pairs[inside] + [0, n_head - start]
        yield Window(ids, pairs, token[inside] >= new, first[inside], n_head)


def check_texts(
    story: Story, tokenizer: Any, name: str, frame: Frame, context: str | int, longest: int
) -> None:
    """Cut a story into the texts that a model reads, as far as this needs no weights.

    Parameters
    ----------
    longest : tokens that the model reads at once

    Raises
    ------
    ModelError : a word has no token
    SettingsError : a context that is too long for the model, or too short
    """
    for run in story.runs:
        part = story.take([run])
        for first, stop in cut_passages(part, context):
            passage = encode_passage(part, first, stop, tokenizer, name, frame)
            for _ in cut_run_windows(run, passage, name, context, longest):
                pass


def cut_run_windows(
    run: str, passage: Passage, name: str, context: str | int, longest: int
) -> Iterator[Window]:
    """Cut a passage as `cut_windows` does; errors name the run and the model."""
    try:
        yield from cut_windows(passage, context, longest)
    except SettingsError as error:
        if context != "run":
            raise
        raise SettingsError(f"'{run}', '{name}': {error}") from error


def assign_tokens(
    spans: np.ndarray, offsets: np.ndarray, special: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Assign every token to the word of which it covers most characters.

    Parameters
    ----------
    spans : (n_words, 2) characters of each word in the text, in order
    offsets : (n_tokens, 2) characters of each token, from the tokenizer
    special : (n_tokens,) bool, tokens without text (BOS)

    Returns
    -------
    owner : (n_tokens,) word of each token; −1 for none (special tokens, text between words)
    lent : (n_lent, 2) pairs (word, token) for words whose tokens all belong to a neighbour

    Raises
    ------
    ModelError : a word has no token
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


def cut_token_windows(n_tokens: int, context: str | int, longest: int) -> Iterator[tuple[int, int, int]]:
    """Yield windows of a text (start, first new token, stop), in which every token is new once."""
    if context == "run" and n_tokens > longest:
        raise SettingsError(
            f"The run has {n_tokens} tokens and the model reads at most {longest} at once. Use context = {longest}."
        )
    if longest < 2:
        raise SettingsError(
            "The prefix, suffix and chat leave the model no room for the story. Shorten them."
        )
    limit = longest if isinstance(context, str) else int(context)
    if limit > longest:
        raise SettingsError(
            f"The model reads at most {longest} tokens at once; a context of {limit} is too long."
        )
    if limit < 2:
        raise SettingsError(f"A context of {limit} tokens is too short; use at least 2, or 'sentence'.")
    if n_tokens <= limit:
        yield 0, 0, n_tokens
        return
    step = limit // 2
    yield 0, 0, limit
    for new in range(limit, n_tokens, step):
        stop = min(new + step, n_tokens)
        yield stop - limit if stop - limit > 0 else 0, new, stop


def make_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Group texts of similar length, so that there is little padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
