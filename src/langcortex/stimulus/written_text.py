"""The story as it is written: sentence case and end marks, or a punctuated text of one's own, tied to the timed words."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from langcortex.errors import StoryError
from langcortex.stimulus.story import ENDS_SENTENCE, Story, unit_ids

COLUMNS = ["run", "what", "text", "label", "onset", "label_id"]
ALIKE = 0.6  # how much of their letters two spellings share when they are taken for one word
FOUND = 0.5  # the smallest share of timed words that a text must hold to be the story's
_WORD = re.compile(r"[一-鿿]|[^\s一-鿿]+")
_CJK = re.compile(r"[一-鿿]")


def add_sentence_marks(story: Story) -> Story:
    """Begin every sentence with a capital and end it with a full stop, where its labels have neither.

    A lone English "i" becomes "I". The full stop belongs to the sentence's last word.

    Raises
    ------
    StoryError : the story's sentences are its pause groups, which are no sentences to write out
    """
    if story.phrase is not None and len(set(story.phrase.tolist())) > len(story.runs):
        ends, pauses = (g[1:] != g[:-1] for g in (story.sentence, story.phrase))
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


def align_written_text(story: Story, texts: Mapping[str, str]) -> tuple[Story, pd.DataFrame]:
    """Give a story the text as written: the words of the text with the times of the labels they match.

    Text and labels are cut at apostrophes, hyphens and underscores, put in lower case without accents, and aligned
    in order. A word of the text covers every label it shares a part with ("can't" covers "can" and "t"); words of
    the text that share one label become one word. What was heard but is not in the text stays, as it was timed;
    what is in the text but was not timed is kept for the model to read (`Story.before`), with no response
    asked of it. Sentences end where the text's punctuation ends them.

    Parameters
    ----------
    story : timed words
    texts : run → the run's text

    Returns
    -------
    story : the words of the text
    unmatched : a row for everything that did not align: run; what, which is "text without a time", "label without
        a text" or "spelt otherwise"; text; label; onset in seconds; label_id

    Raises
    ------
    StoryError : a run has no text, or fewer than half of its timed words are in it
    """
    missing = [run for run in story.runs if run not in texts]
    if missing:
        raise StoryError(
            f"Run '{missing[0]}' has no text. The texts are for: {', '.join(texts) or 'no run'}; name them like the story's runs."
        )
    parts, rows = [], []
    for run in story.runs:
        part, odd = _align_run(story.take([run]), run, texts[run])
        parts.append(part)
        rows += odd
    return _joined(story, parts), pd.DataFrame(rows, columns=COLUMNS)


def _joined(story: Story, parts: Sequence[Story]) -> Story:
    """Put the runs of a story together again."""

    def whole(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return replace(
        story,
        ids=whole("ids"),
        text=whole("text"),
        onset=whole("onset"),
        duration=whole("duration"),
        run=whole("run"),
        sentence=whole("sentence"),
        before=whole("before"),
        covers=whole("covers"),
        phrase=None if story.phrase is None else whole("phrase"),
    )


@dataclass
class _Unit:
    """Words of the text and labels that belong together; either may be missing."""

    words: list[int]
    labels: list[int]
    same: bool = True


def _align_run(
    story: Story, run: str, text: str
) -> tuple[Story, list[tuple[str, str, str, str, float, str]]]:
    spans = [m.span() for m in _WORD.finditer(text)]
    words = [text[a:b] for a, b in spans]
    units = _units(words, story.text.tolist())
    label_ids = story.ids if story.covers is None else story.covers
    matched = sum(len(u.labels) for u in units if u.words)
    if matched < FOUND * len(story):
        raise StoryError(
            f"Only {matched} of the {len(story)} timed words of run '{run}' are in its text. Is it the text of this run?"
        )
    odd: list[tuple[str, str, str, str, float, str]] = []
    kept: list[tuple[_Unit, str, str]] = []
    closes: list[bool] = []
    end = 0
    for unit in units:
        said = " ".join(str(story.text[i]) for i in unit.labels)
        ids = " ".join(str(label_ids[i]) for i in unit.labels)
        onset = float(story.onset[unit.labels[0]]) if unit.labels else np.nan
        if not unit.words:
            odd.append((run, "label without a text", "", said, onset, ids))
            kept.append((unit, said, " "))
            closes.append(False)
            continue
        begin, stop = spans[unit.words[0]][0], spans[unit.words[-1]][1]
        shown = text[begin:stop]
        if not unit.labels:
            if _parts(shown):
                odd.append((run, "text without a time", shown, "", np.nan, ""))
            if closes and ENDS_SENTENCE.search(shown):
                closes[-1] = True
            continue
        if not unit.same:
            odd.append((run, "spelt otherwise", shown, said, onset, ids))
        kept.append((unit, shown, text[end:begin] if end else ""))
        closes.append(bool(ENDS_SENTENCE.search(shown)))
        end = stop
    ends = np.concatenate([[0], np.cumsum(closes)[:-1]])
    return _story_of(story, run, kept, ends, label_ids), odd


def _story_of(
    story: Story,
    run: str,
    kept: Sequence[tuple[_Unit, str, str]],
    sentence: np.ndarray,
    label_ids: np.ndarray,
) -> Story:
    first = np.array([u.labels[0] for u, _, _ in kept])
    last = np.array([u.labels[-1] for u, _, _ in kept])
    return replace(
        story,
        ids=np.array([f"{run}/word-{i:04d}" for i in range(len(kept))]),
        text=np.array([shown for _, shown, _ in kept]),
        onset=story.onset[first],
        duration=story.onset[last] + story.duration[last] - story.onset[first],
        run=story.run[first],
        sentence=unit_ids(run, "sentence", np.asarray(sentence, dtype=int)),
        before=np.array(["", *(before or " " for _, _, before in kept[1:])]),
        covers=np.array([" ".join(str(label_ids[i]) for i in u.labels) for u, _, _ in kept]),
        phrase=None if story.phrase is None else story.phrase[first],
    )


def _units(words: Sequence[str], labels: Sequence[str]) -> list[_Unit]:
    """Match words and labels through their parts, and join whatever shares a part."""
    a = [(part, i) for i, word in enumerate(words) for part in _parts(word)]
    b = [(part, i) for i, label in enumerate(labels) for part in _parts(label)]
    match = difflib.SequenceMatcher(None, [p for p, _ in a], [p for p, _ in b], autojunk=False)
    pairs: list[tuple[int, int, bool]] = []
    for what, i, j, k, m in match.get_opcodes():
        pairs += _pairs(what, a[i:j], b[k:m])
    units: list[_Unit] = []
    for word, label, same in pairs:
        if units and (word <= units[-1].words[-1] or label <= units[-1].labels[-1]):
            _extend(units[-1], word, label, same)
        else:
            units.append(_Unit([word], [label], same))
    return _with_lone(units, len(words), len(labels))


def _pairs(
    what: str, a: Sequence[tuple[str, int]], b: Sequence[tuple[str, int]]
) -> list[tuple[int, int, bool]]:
    """Pair the parts of one stretch: the same, or close enough to be the same word."""
    if what == "equal":
        return [(i, k, True) for (_, i), (_, k) in zip(a, b, strict=True)]
    if what != "replace":
        return []
    text, said = "".join(p for p, _ in a), "".join(p for p, _ in b)
    number = text.isdigit() and not any(c.isdigit() for c in said) and len(b) <= 3 * len(text) + 3
    if text == said or number:
        return [(i, k, text == said) for i, k in _all_pairs(a, b)]
    if len(a) == len(b):
        alike = [
            difflib.SequenceMatcher(None, p, q).ratio() >= ALIKE for (p, _), (q, _) in zip(a, b, strict=True)
        ]
        return [(i, k, False) for ((_, i), (_, k), ok) in zip(a, b, alike, strict=True) if ok]
    return []


def _all_pairs(a: Sequence[tuple[str, int]], b: Sequence[tuple[str, int]]) -> list[tuple[int, int]]:
    """Tie the first of each to all of the other, and the last to the last."""
    words, labels = [i for _, i in a], [k for _, k in b]
    return [(words[0], k) for k in labels] + [(i, labels[-1]) for i in words]


def _extend(unit: _Unit, word: int, label: int, same: bool) -> None:
    unit.words += range(unit.words[-1] + 1, word + 1)
    unit.labels += range(unit.labels[-1] + 1, label + 1)
    unit.same &= same


def _with_lone(units: Sequence[_Unit], n_words: int, n_labels: int) -> list[_Unit]:
    """Put words and labels that nothing matches in their places, labels first."""
    out: list[_Unit] = []
    word = label = 0
    for unit in [*units, _Unit([n_words], [n_labels])]:
        out += [_Unit([], [k]) for k in range(label, unit.labels[0])]
        out += [_Unit([i], []) for i in range(word, unit.words[0])]
        out.append(unit)
        word, label = unit.words[-1] + 1, unit.labels[-1] + 1
    return out[:-1]


def _parts(word: str) -> list[str]:
    """Cut a word at everything that is no letter or digit, without case and accents.

    >>> _parts("Can't")
    ['can', 't']
    """
    plain = unicodedata.normalize("NFKD", word.casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return [part for part in re.split(r"[\W_]+", plain) if part]
