"""Static word vectors: what each word means by itself, from a file such as GloVe's or word2vec's."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from langcortex.errors import SettingsError
from langcortex.features.pieces import fill_with_run_mean, word_pieces
from langcortex.features.table import COMBINE, Features
from langcortex.paths import require_file
from langcortex.stimulus.story import Story

_ENDS = re.compile(r"^[^\w']+|[^\w']+$|^'(?=\w{3})|(?<=\w)'+$")
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|d|m|re|ve|ll))$", re.IGNORECASE)
_ELISION = re.compile(r"^(\w{1,6}')(?=\w{2})")


def static_vectors(
    story: Story,
    *,
    file: Path,
    vocabulary: Path | None = None,
    combine: str = "mean",
    lower: bool = True,
    least: float = 0.5,
) -> Features:
    """Give each word the vector that a file has for it.

    A word is looked up as it is written, then without the punctuation around it, then in parts ("don't": "do",
    "n't"; "well-known": "well", "known"), whose vectors are averaged. A word that is still unknown gets the mean
    vector of its run's known words, which says nothing about it; `known_words` counts these.

    Parameters
    ----------
    file : a text with a word and its numbers a line (GloVe; word2vec, whose first line is two counts; either may
        be gzipped: .gz), or a .npy table, (n_words, n_columns)
    vocabulary : the words of a .npy table, one a line, in its order
    combine : how words merge into sentences and scans: "mean", "sum" or "last"
    lower : look words up in lower case; leave it out for a file that tells "Paris" from "paris"
    least : the smallest share of words the file must know

    Raises
    ------
    SettingsError : the file is missing, broken, or knows too few of the words

    References
    ----------
    Pennington et al. 2014, doi:10.3115/v1/D14-1162; Mikolov et al. 2013, arXiv:1301.3781
    """
    if combine not in COMBINE:
        raise SettingsError(
            f"static combines words by {', '.join(COMBINE[:-1])} or {COMBINE[-1]}, not '{combine}'."
        )
    found = _of_words(story, file, vocabulary, lower)
    share = float(np.mean([v is not None for v in found]))
    if share == 0 or share < least:
        raise SettingsError(
            f"{file} knows {share:.0%} of the words of story '{story.name}'. Is it for another language, or does it "
            "tell upper from lower case (lower = false)? Set least to accept it all the same."
        )
    width = next(len(v) for v in found if v is not None)
    values = np.array([np.full(width, np.nan) if v is None else v for v in found])
    return word_pieces("static", story, fill_with_run_mean(values, story, f"a vector in {file}"), combine)


def known_words(story: Story, file: Path, vocabulary: Path | None = None, lower: bool = True) -> pd.DataFrame:
    """Count the words of each run that a file of word vectors has no vector for.

    Returns
    -------
    (n_runs,) run; words; unknown, how many of them; share, unknown / words; most, the commonest unknown words
    with a space between, at most 10
    """
    found = _of_words(story, file, vocabulary, lower)
    lost = np.array([v is None for v in found])
    rows = []
    for run in story.runs:
        here = story.run == run
        most = pd.Series([str(w) for w in story.text[here & lost]], dtype=object).value_counts().index[:10]
        n, unknown = int(here.sum()), int((here & lost).sum())
        rows.append((run, n, unknown, unknown / n, " ".join(most)))
    return pd.DataFrame(rows, columns=pd.Index(["run", "words", "unknown", "share", "most"]))


def read_vectors(
    file: Path, wanted: Collection[str], vocabulary: Path | None = None
) -> dict[str, np.ndarray]:
    """Read the vectors of some words; the rest of the file is checked, not kept.

    Returns
    -------
    word → (n_columns,) float64; words the file lacks are absent, and of two lines for one word the first counts

    Raises
    ------
    SettingsError : the file is missing, breaks off, or is no such file
    """
    require_file(file, SettingsError, "file of word vectors")
    wanted = frozenset(wanted)
    return _from_array(file, wanted, vocabulary) if file.suffix == ".npy" else _from_text(file, wanted)


def _of_words(story: Story, file: Path, vocabulary: Path | None, lower: bool) -> list[np.ndarray | None]:
    ways = {word: _ways(word, lower) for word in dict.fromkeys(map(str, story.text))}
    vectors = read_vectors(file, {p for way in ways.values() for parts in way for p in parts}, vocabulary)
    known = {word: _first_known(way, vectors) for word, way in ways.items()}
    return [known[str(word)] for word in story.text]


def _ways(word: str, lower: bool) -> list[list[str]]:
    """List how a word may stand in a file, best first, each way in parts.

    >>> _ways("Don’t!", lower=True)
    [["don't!"], ["don't"], ['do', "n't"]]
    """
    word = word.replace("’", "'")
    cases = [word.lower()] if lower else [word, word.lower()]
    out: list[list[str]] = []
    for written in cases:
        bare = _ENDS.sub("", written)
        parts = re.split(r"[\s_/–—-]+", _ELISION.sub(r"\1 ", _CLITIC.sub(r" \1", bare)))
        out += [[written], [bare], [p for p in parts if p]]
        out += [["n't"]] if bare == "'t" else []
    return [way for i, way in enumerate(out) if any(way) and way not in out[:i]]


def _first_known(ways: list[list[str]], vectors: Mapping[str, np.ndarray]) -> np.ndarray | None:
    for parts in ways:
        known = [vectors[p] for p in parts if p in vectors]
        if known:
            return np.asarray(np.mean(known, axis=0))
    return None


def _from_text(file: Path, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    rows = width = declared = 0
    with _lines(file) as lines:
        for number, raw in enumerate(lines, start=1):
            line = raw.rstrip(" \r\n").replace("\t", " ")
            if number == 1 and re.fullmatch(r"\d+ \d+", line):
                declared, width = map(int, line.split())
                continue
            width = width or line.count(" ")
            if width < 1 or line.count(" ") < width:
                raise SettingsError(
                    f"{file}, line {number} is not a word and {max(width, 1)} numbers. The file breaks off, or is no "
                    "text of word vectors; fetch it again."
                )
            rows += 1
            word = line.partition(" ")[0] if line.count(" ") == width else line.rsplit(" ", width)[0]
            if word in wanted and word not in out:
                out[word] = _numbers(line[len(word) :], width, file, number)
    if rows == 0 or rows < declared:
        raise SettingsError(f"{file} breaks off after {rows} words of {declared or 'none'}. Fetch it again.")
    return out


@contextmanager
def _lines(file: Path) -> Iterator[TextIO]:
    """Open a text, gzipped or not; lines end at line feeds only, for other separators are words in GloVe."""
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8", newline="\n")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8", newline="\n")
        ) as lines:
            yield lines
    except (UnicodeError, OSError, EOFError, zlib.error) as error:
        raise SettingsError(
            f"{file} cannot be read as a text of word vectors ({error}). Give a text such as glove.6B.300d.txt, or a .npy table."
        ) from error


def _numbers(cells: str, width: int, file: Path, number: int) -> np.ndarray:
    try:
        values = np.array(cells.split(), dtype=np.float64)
    except ValueError:
        values = np.empty(0)
    if len(values) != width or not np.isfinite(values).all():
        raise SettingsError(
            f"{file}, line {number} is not a word and {width} numbers. The file breaks off, or is no text of word "
            "vectors; fetch it again."
        )
    return values


def _from_array(file: Path, wanted: frozenset[str], vocabulary: Path | None) -> dict[str, np.ndarray]:
    if vocabulary is None:
        raise SettingsError(
            f"{file} is a table without words. Name the text with its words, one a line: vocabulary."
        )
    require_file(vocabulary, SettingsError, "vocabulary")
    try:
        table = np.load(file, mmap_mode="r", allow_pickle=False)
        words = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (ValueError, EOFError, OSError) as error:  # UnicodeError is a ValueError
        raise SettingsError(f"{file} or {vocabulary} cannot be read ({error}). Fetch them again.") from error
    if table.ndim != 2 or table.shape[1] == 0 or table.dtype.kind not in "fi" or len(table) != len(words):
        raise SettingsError(
            f"{file} is a table of shape {table.shape} and type {table.dtype}; {vocabulary} has {len(words)} words. "
            "They must have as many rows as words, of numbers."
        )
    out: dict[str, np.ndarray] = {}
    for row, word in enumerate(words):
        word = word.removesuffix("\r")
        if word in wanted and word not in out:
            out[word] = np.array(table[row], dtype=np.float64)
            if not np.isfinite(out[word]).all():
                raise SettingsError(
                    f"{file}, row {row} ('{word}') has NaN or infinite numbers. Fetch it again."
                )
    return out
