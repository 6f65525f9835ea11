"""Written text for timed words: sentence case and end marks, or a punctuated text that is aligned to the words."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from langcortex.errors import StoryError
from langcortex.stimulus.joining import guess_written_language, join_words, primary_language, text_between
from langcortex.stimulus.sentences import sentence_ends
from langcortex.stimulus.story import ENDS_SENTENCE, Story, unit_ids

COLUMNS = ["run", "what", "text", "label", "onset", "label_id"]
LEAST_SIMILARITY = 0.6  # from which on two spellings count as one word (difflib's ratio)
LEAST_MATCHED = 0.5  # the smallest share of timed words that must be in a text
# characters of scripts without blanks between words: each is aligned by itself
_RANGES = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF),
    (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x323AF),
)  # fmt: skip
_UNSPACED = "".join(f"{chr(a)}-{chr(b)}" for a, b in _RANGES)
_MODIFIERS = "".join(
    chr(i) for a, b in _RANGES[:4] for i in range(a, b + 1) if unicodedata.category(chr(i))[0] == "M"
)
_OPENING = re.escape("“‘「『（《〈【〔([{«")
_CHARACTER = rf"[{_OPENING}]*[{_UNSPACED}][{_MODIFIERS}]*[^\w\s{_OPENING}{_MODIFIERS}]*"
_WORD = re.compile(rf"{_CHARACTER}|[^\s{_UNSPACED}]+")
_BASE = re.compile(rf"[{_UNSPACED}][{_MODIFIERS}]*|[^{_UNSPACED}]+")
_ANY_CHARACTER = re.compile(rf"[{_OPENING}]*[^\W_][{_MODIFIERS}]*[^\w\s{_OPENING}{_MODIFIERS}]*|[^\w\s]+|_+")
_ANY_BASE = re.compile(rf"[^\W_][{_MODIFIERS}]*")
_UNSPACED_LANGUAGES = (
    "zh",
    "yue",
    "ja",
    "th",
    "lo",
    "km",
    "my",
    "bo",
)  # all of their text is aligned by characters
_BASE_UNSPACED = re.compile(f"[{_UNSPACED}]")
_CJK = re.compile(r"[\u3400-\u9fff]")

Mismatch = tuple[str, str, str, str, float, str]
"""A row of the table of what did not align, see `COLUMNS`."""


def add_sentence_marks(story: Story) -> Story:
    """Capitalise the first letter of every sentence and end it with a full stop, where its labels do not.

    The English word "i" becomes "I". The full stop is part of the sentence's last word.

    Raises
    ------
    StoryError : the story's sentences are its pause groups, which do not end where sentences end
    """
    if story.phrase is not None and len(set(story.phrase.tolist())) > len(story.runs):
        ends, pauses = (group[1:] != group[:-1] for group in (story.sentence, story.phrase))
        if np.array_equal(ends, pauses):
            raise StoryError(
                f"Story '{story.name}': its sentences are stretches from pause to pause, so capitals and full stops would be "
                "put at pauses. Leave story.written out, or give the text itself with story.text."
            )
    text = story.text.astype(object)
    first = np.concatenate([[True], story.sentence[1:] != story.sentence[:-1]])
    last = np.append(first[1:], True)
    for i, word in enumerate(text.tolist()):
        if word == "i":
            text[i] = "I"
        if first[i]:
            text[i] = text[i][:1].upper() + text[i][1:]
        if last[i] and not ENDS_SENTENCE.search(text[i]):
            text[i] += "。" if _CJK.search(text[i]) else "."
    return replace(story, text=np.array([str(t) for t in text]))


def align_written_text(
    story: Story, texts: Mapping[str, str], language: str | None = None
) -> tuple[Story, pd.DataFrame]:
    """Align a written text to timed words: the words of the text get the times of the labels that they match.

    Text and labels are split at apostrophes, hyphens and underscores, put in lower case without accents, and aligned
    in order. A word of the text covers every label with which it shares a part ("can't" covers "can" and "t"); words
    of the text that share one label become one word. Labels that are not in the text stay as they were timed; words
    of the text without a time are kept for the model to read (`Story.before`), but no response is predicted from
    them. Sentences end where the text's punctuation ends them in its language. Chinese, Japanese, Thai and other scripts
    without blanks are aligned character by character, and the words are those of the labels.

    Parameters
    ----------
    story : timed words
    texts : run → the run's text
    language : of the text, a code such as "en"; guessed where None

    Returns
    -------
    story : the words of the text
    unmatched : one row per word or label that did not align: run; what, which is "text without a time", "label
        without a text" or "spelt otherwise"; text; label; onset in seconds; label_id

    Raises
    ------
    StoryError : a run has no text, or fewer than half of its timed words are in it
    """
    language = language or guess_written_language(" ".join(texts.values()).split())
    missing = [run for run in story.runs if run not in texts]
    if missing:
        raise StoryError(
            f"Run '{missing[0]}' has no text. The texts are for: {', '.join(texts) or 'no run'}; name them like the story's runs."
        )
    parts: list[Story] = []
    unmatched: list[Mismatch] = []
    for run in story.runs:
        part, mismatches = _align_run(story.take([run]), run, texts[run], language)
        parts.append(part)
        unmatched += mismatches
    return _join_runs(story, parts), pd.DataFrame(unmatched, columns=COLUMNS)


def _join_runs(story: Story, parts: Sequence[Story]) -> Story:
    """Concatenate the runs of a story."""

    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return replace(
        story,
        ids=join("ids"),
        text=join("text"),
        onset=join("onset"),
        duration=join("duration"),
        run=join("run"),
        sentence=join("sentence"),
        before=join("before"),
        covers=join("covers"),
        phrase=None if story.phrase is None else join("phrase"),
    )


@dataclass
class _Match:
    """Words of the text and labels that belong together; either list may be empty."""

    words: list[int]
    labels: list[int]
    identical: bool = True


class _WrittenWord(NamedTuple):
    """A word of the aligned story: its labels, its text, the text before it (None: as the language has it), and its sentence (−1: that of
    the next word)."""

    labels: list[int]
    text: str
    before: str | None
    sentence: int


def _align_run(story: Story, run: str, text: str, language: str) -> tuple[Story, list[Mismatch]]:
    """Align the text of one run: the aligned story, and what did not align."""
    by_character = primary_language(language) in _UNSPACED_LANGUAGES
    spans = [m.span() for m in (_ANY_CHARACTER if by_character else _WORD).finditer(text)]
    begins = np.array([a for a, _ in spans], dtype=np.int64)
    sentence = np.searchsorted(sentence_ends(text, language), begins, side="right")
    matches = _match_words([text[a:b] for a, b in spans], story.text.tolist(), by_character)
    label_ids = story.ids if story.covers is None else story.covers
    n_matched = sum(len(m.labels) for m in matches if m.words)
    if n_matched < LEAST_MATCHED * len(story):
        raise StoryError(
            f"Only {n_matched} of the {len(story)} timed words of run '{run}' are in its text. Is it the text of this run?"
        )
    mismatches: list[Mismatch] = []
    words: list[_WrittenWord] = []
    end = 0
    for match in matches:
        label = join_words([str(story.text[i]) for i in match.labels], language)
        ids = " ".join(str(label_ids[i]) for i in match.labels)
        onset = float(story.onset[match.labels[0]]) if match.labels else np.nan
        if not match.words:
            mismatches.append((run, "label without a text", "", label, onset, ids))
            words.append(_WrittenWord(match.labels, label, None, -1))
            continue
        begin, stop = spans[match.words[0]][0], spans[match.words[-1]][1]
        written = text[begin:stop]
        if not match.labels:
            if _split_parts(written):
                mismatches.append((run, "text without a time", written, "", np.nan, ""))
            continue
        if not match.identical:
            mismatches.append((run, "spelt otherwise", written, label, onset, ids))
        before = text[end:begin] if end else ""
        is_unknown = not before and bool(words) and words[-1].sentence < 0
        words.append(
            _WrittenWord(match.labels, written, None if is_unknown else before, int(sentence[match.words[0]]))
        )
        end = stop
    return _make_run(story, run, words, label_ids, language), mismatches


def _make_run(
    story: Story, run: str, words: Sequence[_WrittenWord], label_ids: np.ndarray, language: str
) -> Story:
    """Make the story of one run from its aligned words; `story` has the run's labels."""
    first = np.array([w.labels[0] for w in words])
    last = np.array([w.labels[-1] for w in words])
    numbers = [w.sentence for w in words]
    for i in range(
        len(numbers) - 2, -1, -1
    ):  # a label without a text goes with the word after it, the last with that before
        numbers[i] = numbers[i + 1] if numbers[i] < 0 else numbers[i]
    sentence = np.unique(np.maximum.accumulate(numbers), return_inverse=True)[1]
    gaps = text_between([w.text for w in words], language)
    return replace(
        story,
        ids=np.array([f"{run}/word-{i:04d}" for i in range(len(words))]),
        text=np.array([w.text for w in words]),
        onset=story.onset[first],
        duration=story.onset[last] + story.duration[last] - story.onset[first],
        run=story.run[first],
        sentence=unit_ids(run, "sentence", np.asarray(sentence, dtype=int)),
        before=np.array(
            ["", *(gap if w.before is None else w.before for w, gap in zip(words[1:], gaps[1:], strict=True))]
        ),
        covers=np.array([" ".join(str(label_ids[i]) for i in w.labels) for w in words]),
        phrase=None if story.phrase is None else story.phrase[first],
    )


def _match_words(words: Sequence[str], labels: Sequence[str], by_character: bool = False) -> list[_Match]:
    """Match words and labels by their parts, and join those that share a part."""
    a = [(part, i) for i, word in enumerate(words) for part in _split_parts(word, by_character)]
    b = [(part, i) for i, label in enumerate(labels) for part in _split_parts(label, by_character)]
    matcher = difflib.SequenceMatcher(None, [p for p, _ in a], [p for p, _ in b], autojunk=False)
    pairs: list[tuple[int, int, bool]] = []
    for operation, i, j, k, m in matcher.get_opcodes():
        pairs += _pair_parts(operation, a[i:j], b[k:m])
    matches: list[_Match] = []
    for word, label, identical in pairs:
        if matches and (word <= matches[-1].words[-1] or label <= matches[-1].labels[-1]):
            _extend(matches[-1], word, label, identical)
        else:
            matches.append(_Match([word], [label], identical))
    return _add_unmatched(matches, len(words), len(labels))


def _pair_parts(
    operation: str, a: Sequence[tuple[str, int]], b: Sequence[tuple[str, int]]
) -> list[tuple[int, int, bool]]:
    """Pair the parts of one of difflib's operations that are equal, or similar enough to be one word.

    Returns
    -------
    (word, label, whether they are spelt alike) of each pair
    """
    if operation == "equal":
        return [(i, k, True) for (_, i), (_, k) in zip(a, b, strict=True)]
    if operation != "replace":
        return []
    text, label = "".join(p for p, _ in a), "".join(p for p, _ in b)
    is_number = text.isdigit() and not any(c.isdigit() for c in label) and len(b) <= 3 * len(text) + 3
    if text == label or is_number:
        return [(i, k, text == label) for i, k in _all_pairs(a, b)]
    if len(a) == len(b):
        similar = [
            difflib.SequenceMatcher(None, p, q).ratio() >= LEAST_SIMILARITY
            for (p, _), (q, _) in zip(a, b, strict=True)
        ]
        return [(i, k, False) for ((_, i), (_, k), ok) in zip(a, b, similar, strict=True) if ok]
    return []


def _all_pairs(a: Sequence[tuple[str, int]], b: Sequence[tuple[str, int]]) -> list[tuple[int, int]]:
    """Pair the first word with every label, and every word with the last label."""
    words, labels = [i for _, i in a], [k for _, k in b]
    return [(words[0], k) for k in labels] + [(i, labels[-1]) for i in words]


def _extend(match: _Match, word: int, label: int, identical: bool) -> None:
    match.words += range(match.words[-1] + 1, word + 1)
    match.labels += range(match.labels[-1] + 1, label + 1)
    match.identical &= identical


def _add_unmatched(matches: Sequence[_Match], n_words: int, n_labels: int) -> list[_Match]:
    """Insert the words and labels that match nothing in their places, labels first."""
    out: list[_Match] = []
    word = label = 0
    for match in [*matches, _Match([n_words], [n_labels])]:
        out += [_Match([], [k]) for k in range(label, match.labels[0])]
        out += [_Match([i], []) for i in range(word, match.words[0])]
        out.append(match)
        word, label = match.words[-1] + 1, match.labels[-1] + 1
    return out[:-1]


def _split_parts(word: str, by_character: bool = False) -> list[str]:
    """Split a word at characters that are not letters or digits, ignoring case and accents; scripts without blanks, at each.

    >>> _split_parts("Can't"), _split_parts("森林。")
    (['can', 't'], ['森', '林'])
    """
    if by_character:
        return [unicodedata.normalize("NFKC", piece).casefold() for piece in _ANY_BASE.findall(word)]
    parts: list[str] = []
    for piece in _BASE.findall(word):
        if _BASE_UNSPACED.match(piece):
            parts.append(unicodedata.normalize("NFKC", piece))
            continue
        plain = unicodedata.normalize("NFKD", piece.casefold())
        plain = "".join(c for c in plain if not unicodedata.combining(c))
        parts += [part for part in re.split(r"[\W_]+", plain) if part]
    return parts
