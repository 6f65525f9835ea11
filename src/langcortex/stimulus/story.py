"""Words and sentences with ids and times, on the story's clock."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.errors import StoryError
from langcortex.paths import as_path, require_file
from langcortex.stimulus.textgrid import read_textgrid

# only marks that cannot be words; "silence" can
PAUSES = frozenset({"", "#", "sp", "sil", "<sil>", "<silence>", "<p:>", "{p}", "<pause>"})
SENTENCES = ("auto", "column", "punctuation", "pauses")
_CLITIC = re.compile(r"^(?:['’](?:s|d|m|t|re|ve|ll)|n['’]t)\b", re.IGNORECASE)
ENDS_SENTENCE = re.compile(r"""[.!?…。！？]["'”’»)\]]*$""")
_COLUMNS = {
    "word": ("word", "text", "token", "label", "value", "trial_type"),
    "onset": ("onset", "start", "start_time", "begin"),
    "duration": ("duration", "dur"),
    "end": ("offset", "end", "stop", "end_time"),
    "run": ("run", "section"),
    "sentence": ("sentence", "sentence_id"),
}


@dataclass(frozen=True, eq=False)
class Units:
    """Units of a story with ids and times: its words, its sentences, or its pause groups.

    Attributes
    ----------
    ids : (n_units,) e.g. ``"section1/sentence-040"``
    onset, duration : (n_units,) seconds since the run's stimulus began
    run : (n_units,)
    text : (n_units,)
    n_words : (n_units,)
    """

    ids: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    run: np.ndarray
    text: np.ndarray
    n_words: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Story:
    """Words in order, each with an id, a time, a run and a sentence.

    Attributes
    ----------
    name : name of the story
    ids : (n_words,) e.g. ``"section1/word-0042"``, counted from 0 within the run
    text : (n_words,) as a model should read it, punctuation included
    onset, duration : (n_words,) seconds since the run's stimulus began, float64
    run : (n_words,) the run in which each word is heard; the words of a run are contiguous
    sentence : (n_words,) the id of the word's sentence; the words of a sentence are contiguous
    before : (n_words,) the text between the previous word and this one, usually one space; written words without
        a time are part of it, so that a model reads them but no response is predicted from them
    phrase : (n_words,) the id of the word's pause group; None where no pause is marked
    covers : (n_words,) ids of the timed labels that each word consists of, separated by spaces; None where every
        word is a label of its own
    left_out : run → number of labels that were pauses or empty
    """

    name: str
    ids: np.ndarray
    text: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    run: np.ndarray
    sentence: np.ndarray
    before: np.ndarray
    left_out: Mapping[str, int] = field(default_factory=dict)
    phrase: np.ndarray | None = None
    covers: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in self._columns:
            if getattr(self, name).shape != self.ids.shape:
                raise StoryError(
                    f"Story '{self.name}': {name} has {len(getattr(self, name))} rows, ids {len(self.ids)}."
                )
        if len(self.ids) == 0:
            raise StoryError(f"Story '{self.name}' has no words.")
        for run in self.runs:
            self._check_run(run)
        if len(set(self.ids.tolist())) != len(self.ids):
            raise StoryError(f"Story '{self.name}': two words have the same id.")
        for level in ("sentence", "phrase") if self.phrase is not None else ("sentence",):
            group = getattr(self, level)
            starts = np.flatnonzero(group[1:] != group[:-1]) + 1
            if len(starts) + 1 != len(set(group.tolist())):
                raise StoryError(f"Story '{self.name}': the words of a {level} are not contiguous.")

    def _check_run(self, run: str) -> None:
        """Check that the words of a run are contiguous, timed and in the order of their onsets."""
        rows = np.flatnonzero(self.run == run)
        if rows[-1] - rows[0] + 1 != len(rows):
            raise StoryError(
                f"Story '{self.name}': the words of run '{run}' are not contiguous. Sort them by run and onset."
            )
        onset, duration = self.onset[rows], self.duration[rows]
        untimed = ~np.isfinite(onset) | ~np.isfinite(duration)
        if untimed.any():
            raise StoryError(
                f"Run '{run}': {untimed.sum()} words have no time, first '{self.ids[rows[untimed][0]]}'."
            )
        if (duration < 0).any():
            first = self.ids[rows[duration < 0][0]]
            raise StoryError(
                f"Run '{run}': word '{first}' ends before it begins. Are the times in seconds, and duration not an end time?"
            )
        back = np.flatnonzero(np.diff(onset) < 0)
        if len(back):
            raise StoryError(
                f"Run '{run}': word '{self.ids[rows[back[0] + 1]]}' begins before the word in front of it. Sort the words by onset."
            )

    @property
    def _columns(self) -> tuple[str, ...]:
        optional = [name for name in ("phrase", "covers") if getattr(self, name) is not None]
        return ("ids", "text", "onset", "duration", "run", "sentence", "before", *optional)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def runs(self) -> tuple[str, ...]:
        """The runs, in order."""
        return tuple(dict.fromkeys(self.run.tolist()))

    @cached_property
    def words(self) -> Units:
        """The words as units, one per word."""
        return Units(
            self.ids, self.onset, self.duration, self.run, self.text, np.ones(len(self.ids), dtype=int)
        )

    @cached_property
    def sentences(self) -> Units:
        """The sentences as units, each from the onset of its first word to the end of its last."""
        first = np.concatenate([[0], np.flatnonzero(self.sentence[1:] != self.sentence[:-1]) + 1])
        last = np.append(first[1:], len(self.ids)) - 1
        text = [self.join_words(a, b + 1)[0] for a, b in zip(first, last, strict=True)]
        onset = self.onset[first]
        duration = self.onset[last] + self.duration[last] - onset
        return Units(self.sentence[first], onset, duration, self.run[first], np.array(text), last - first + 1)

    def join_words(self, first: int, stop: int) -> tuple[str, np.ndarray]:
        """Join the words `first` to `stop` (exclusive) to one text and locate each word in it.

        Returns
        -------
        text : the words with the text between them
        spans : (stop − first, 2) first character of each word and the one after its last
        """
        text = ""
        spans = np.empty((stop - first, 2), dtype=np.int64)
        for i in range(first, stop):
            if i > first:
                text += str(self.before[i])
            begin = len(text)
            text += str(self.text[i])
            spans[i - first] = begin, len(text)
        return text, spans

    def take(self, runs: Sequence[str]) -> Story:
        """Return the story of some of its runs, in the story's order."""
        keep = np.isin(self.run, list(runs))
        rows = {name: getattr(self, name)[keep] for name in self._columns}
        return replace(self, **rows, left_out={r: n for r, n in self.left_out.items() if r in set(runs)})

    def group_by(self, unit: str) -> Story:
        """Make words, pause groups or sentences the units that become rows of a design.

        Parameters
        ----------
        unit : "words", "phrases" (from pause to pause), "sentences" or "scans" (both leave sentences as they are)

        Returns
        -------
        Story, whose ``sentences`` are units of that kind
        """
        if unit == "words":
            return replace(self, sentence=self.ids)
        if unit == "phrases":
            if self.phrase is None:
                raise StoryError(
                    f"Story '{self.name}' marks no pauses, so it has no phrases. Use sentences, words or scans."
                )
            return replace(self, sentence=self.phrase)
        return self


def read_story(
    files: Mapping[str, Path | str],
    name: str = "story",
    sentences: str = "auto",
    tier: int | str = 0,
    accept_truncated: bool = False,
) -> Story:
    """Read word timings from one file per run, or from one table with a run column.

    Parameters
    ----------
    files : run → a Praat TextGrid (UTF-8 or UTF-16), or a table (.csv; .tsv and events.tsv without quoting)
        with columns word (or text, label, trial_type), onset (or start) and duration (or offset, end), in
        seconds, and perhaps sentence and run (or section)
    name : name of the story
    sentences : where sentences end. "column": at a new value of the sentence column; "punctuation": after a
        word that ends in . ! ? or …; "pauses": at a pause mark such as ``#`` (at empty labels where a file has
        no other mark); "auto": the first of these that the files allow
    tier : the interval tier of a TextGrid, by position or by name
    accept_truncated : read the complete intervals of a TextGrid that breaks off; otherwise that is an error

    Returns
    -------
    Story, whose ids count words and sentences from 0 within each run

    Raises
    ------
    StoryError : a file cannot be read, a run has no words, or times are impossible
    """
    if not isinstance(files, Mapping):
        raise StoryError("Story files are given by run, such as {'run-1': 'run-1.TextGrid'}.")
    if sentences not in SENTENCES:
        raise StoryError(f"Sentences can be found by {', '.join(SENTENCES)}; not by '{sentences}'.")
    if not files:
        raise StoryError("No story files were given.")
    tables: dict[str, pd.DataFrame] = {}
    for run, path in ((run, as_path(path)) for run, path in files.items()):
        require_file(path, StoryError, "story file")
        table = (
            read_textgrid(path, tier, accept_truncated)
            if path.suffix.lower() == ".textgrid"
            else _read_table(path)
        )
        if "run" in table and len(files) == 1:
            tables |= {str(key): part for key, part in table.groupby("run", sort=False)}
        else:
            tables[run] = table
    return assemble_story(tables, name, sentences)


def make_story(
    words: Mapping[str, Sequence[str]],
    onsets: Mapping[str, np.ndarray],
    durations: Mapping[str, np.ndarray],
    name: str = "story",
    sentence: Mapping[str, Sequence[object]] | None = None,
) -> Story:
    """Make a story of words and times in memory.

    Parameters
    ----------
    words, onsets, durations : per run; seconds
    sentence : per run, one value per word, which changes where a new sentence begins; sentences end by punctuation
        when absent
    """
    tables = {}
    for run, text in words.items():
        table = pd.DataFrame(
            {"word": [str(w) for w in text], "onset": onsets[run], "duration": durations[run]}
        )
        if sentence is not None:
            table["sentence"] = list(sentence[run])
        tables[run] = table
    return assemble_story(tables, name, "column" if sentence is not None else "punctuation")


def _read_table(path: Path) -> pd.DataFrame:
    raw = _read_cells(path)
    lower = {str(c).strip().lower(): c for c in raw.columns}
    columns = {noun: next((lower[c] for c in names if c in lower), None) for noun, names in _COLUMNS.items()}
    for noun, alternative in (("word", "word"), ("onset", "onset"), ("duration", "end")):
        if columns[noun] is None and columns[alternative] is None:
            accepted = " or ".join(_COLUMNS[noun] + (_COLUMNS["end"] if noun == "duration" else ()))
            raise StoryError(
                f"{path} has no column for {noun} ({accepted}). Its columns are: {', '.join(map(str, raw.columns))}."
            )
    times = {"onset": _parse_seconds(raw[columns["onset"]], path)}
    if columns["duration"] is not None:
        times["duration"] = _parse_seconds(raw[columns["duration"]], path)
    else:
        times["duration"] = _parse_seconds(raw[columns["end"]], path) - times["onset"]
    table = pd.DataFrame({"word": [_unquote(w).strip() for w in raw[columns["word"]]], **times})
    for noun in ("run", "sentence"):
        if columns[noun] is not None:
            table[noun] = raw[columns[noun]].to_numpy()
    return table


def _read_cells(path: Path) -> pd.DataFrame:
    """Read a table as text, and check that every row is as long as the header."""
    comma = path.suffix.lower() == ".csv"
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        lines = io.StringIO(content.decode(encoding), newline="")
        # a .tsv is not quoted: its words may be quotation marks
        reader = (
            csv.reader(lines, quoting=csv.QUOTE_MINIMAL)
            if comma
            else csv.reader(lines, "excel-tab", quoting=csv.QUOTE_NONE)
        )
        header, *rows = [row for row in reader if row] or [[]]
    except (UnicodeError, csv.Error) as error:
        raise StoryError(f"{path} cannot be read as a table ({error}).") from error
    ragged = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if ragged is not None:
        raise StoryError(
            f"{path} cannot be read as a table: row {ragged + 2} has {len(rows[ragged])} cells but the header {len(header)}."
        )
    return pd.DataFrame(rows, columns=pd.Index(header), dtype=str)


def _unquote(cell: str) -> str:
    """Undo the quoting that some writers add to a .tsv cell with a quotation mark."""
    doubled = len(cell) > 3 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]
    return cell[1:-1].replace('""', '"') if doubled else cell


def _parse_seconds(column: pd.Series, path: Path) -> np.ndarray:
    values = pd.to_numeric(column.replace({"n/a": "nan", "": "nan"}), errors="coerce").to_numpy(np.float64)
    wrong = np.isnan(values) & ~column.isin(["n/a", "", "nan"]).to_numpy()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise StoryError(
            f"{path}, row {row + 2}: '{column.iloc[row]}' in column '{column.name}' is not a number of seconds."
        )
    seconds: np.ndarray = values
    return seconds


def assemble_story(tables: Mapping[str, pd.DataFrame], name: str, sentences: str) -> Story:
    """Make a story of tables of labels.

    Parameters
    ----------
    tables : run → one row per label, pauses included: word, onset and duration in seconds, and perhaps sentence
    name, sentences : see `read_story`
    """
    columns: dict[str, list[np.ndarray]] = {
        k: [] for k in ("ids", "text", "onset", "duration", "run", "sentence", "before", "phrase")
    }
    left_out: dict[str, int] = {}
    if sentences == "auto":
        sentences = _sentence_rule(tables)
    for run, table in tables.items():
        labels = table["word"].to_numpy(dtype=object)
        pause = np.array([str(label).lower() in PAUSES for label in labels], dtype=bool)
        words = np.flatnonzero(~pause)
        if len(words) == 0:
            raise StoryError(
                f"Run '{run}' has no words: its {len(labels)} labels are all empty or pauses. Check the file, and the tier if it is a TextGrid."
            )
        sentence = _sentence_numbers(table, labels, pause, words, sentences, run)
        phrase = _sentence_numbers(table, labels, pause, words, "pauses", run)
        columns["ids"].append(np.array([f"{run}/word-{i:04d}" for i in range(len(words))]))
        columns["text"].append(np.array([str(labels[i]) for i in words]))
        columns["onset"].append(table["onset"].to_numpy(np.float64)[words])
        columns["duration"].append(table["duration"].to_numpy(np.float64)[words])
        columns["run"].append(np.full(len(words), str(run)))
        columns["sentence"].append(unit_ids(run, "sentence", sentence))
        columns["phrase"].append(unit_ids(run, "phrase", phrase))
        columns["before"].append(
            np.array(["", *("" if _CLITIC.match(str(labels[i])) else " " for i in words[1:])])
        )
        left_out[str(run)] = int(pause.sum())
    joined = {key: np.concatenate(parts) for key, parts in columns.items()}
    if not sum(left_out.values()):
        del joined["phrase"]
    return Story(name=name, left_out=left_out, **joined)


def unit_ids(run: str, kind: str, number: np.ndarray) -> np.ndarray:
    """Return the id of the unit that each word belongs to, e.g. ``"section1/sentence-040"``.

    Parameters
    ----------
    kind : of the unit, e.g. "sentence"
    number : (n_words,) the unit of each word, counted from 0 within the run
    """
    digits = max(3, len(str(int(number[-1]))))
    return np.array([f"{run}/{kind}-{k:0{digits}d}" for k in number.tolist()])


def _sentence_rule(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return the first rule of `SENTENCES` that the tables allow."""
    if all("sentence" in table for table in tables.values()):
        return "column"
    ends = sum(bool(ENDS_SENTENCE.search(str(w))) for table in tables.values() for w in table["word"])
    words = sum(len(table) for table in tables.values())
    return "punctuation" if ends * 100 >= words else "pauses"


def _sentence_numbers(
    table: pd.DataFrame, labels: np.ndarray, pause: np.ndarray, words: np.ndarray, sentences: str, run: str
) -> np.ndarray:
    """Return the number of each word's sentence, from 0: (n_words,)."""
    if sentences == "column":
        if "sentence" not in table:
            raise StoryError(
                f"Run '{run}' has no sentence column. Add one, or find sentences by punctuation or pauses."
            )
        value = table["sentence"].to_numpy(dtype=object)[words]
        new = np.array([False, *(a != b for a, b in zip(value[1:], value[:-1], strict=True))])
    elif sentences == "punctuation":
        closes = np.array([bool(ENDS_SENTENCE.search(str(labels[i]))) for i in words])
        new = np.concatenate([[False], closes[:-1]])
    else:
        marks = {str(label).lower() for label in labels[pause]}
        ending = marks - {""} or marks
        ends = np.array([str(label).lower() in ending for label in labels])
        group = np.cumsum(ends)[words]
        new = np.concatenate([[False], group[1:] != group[:-1]])
    number: np.ndarray = np.cumsum(new)
    return number
