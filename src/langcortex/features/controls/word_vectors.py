"""Static word vectors, from files such as those of GloVe and word2vec."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from langcortex.brain.tables import open_npy
from langcortex.errors import RecordingError, SettingsError
from langcortex.features.pieces import fill_with_run_mean, tabulate_words
from langcortex.features.table import COMBINE, Features
from langcortex.paths import as_path, require_file
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
    """Look up the vector of each word in a file.

    A word is looked up as it is written, then without the punctuation around it, then in parts ("don't": "do",
    "n't"; "well-known": "well", "known"), whose vectors are averaged. A word without a vector gets the mean
    vector of the other words of its run.

    Parameters
    ----------
    file : a text with a word and its numbers per line (GloVe; word2vec, whose first line has two counts; either may
        be gzipped: .gz), or a .npy table, (n_words, n_columns)
    vocabulary : the words of a .npy table, one per line, in its order
    combine : how words merge into sentences and scans: "mean", "sum" or "last"
    lower : look words up in lower case; false for a file that distinguishes "Paris" and "paris"
    least : the smallest share of words that must have a vector

    Raises
    ------
    SettingsError : the file is missing or broken, or has a vector for too few of the words

    References
    ----------
    Pennington et al. 2014, doi:10.3115/v1/D14-1162; Mikolov et al. 2013, arXiv:1301.3781
    """
    if combine not in COMBINE:
        raise SettingsError(
            f"static combines words by {', '.join(COMBINE[:-1])} or {COMBINE[-1]}, not '{combine}'."
        )
    vectors = _look_up_words(story, file, vocabulary, lower)
    share = float(np.mean([v is not None for v in vectors]))
    if share == 0 or share < least:
        raise SettingsError(
            f"{file} has vectors for {share:.0%} of the words of story '{story.name}'. Is it for another language, or "
            "does it distinguish upper and lower case (lower = false)? Set least to accept it nevertheless."
        )
    width = next(len(v) for v in vectors if v is not None)
    values = np.array([np.full(width, np.nan) if v is None else v for v in vectors])
    return tabulate_words("static", story, fill_with_run_mean(values, story, f"a vector in {file}"), combine)


def read_vectors(
    file: Path | str, words: Collection[str], vocabulary: Path | str | None = None
) -> dict[str, np.ndarray]:
    """Read the vectors of some words; the other lines of the file are checked only.

    Returns
    -------
    word → (n_columns,) float64, without words that the file lacks; of two lines with one word the first counts

    Raises
    ------
    SettingsError : the file is missing, breaks off, or has another format
    """
    file = as_path(file)
    vocabulary = None if vocabulary is None else as_path(vocabulary)
    require_file(file, SettingsError, "file of word vectors")
    words = frozenset(words)
    return _read_array(file, words, vocabulary) if file.suffix == ".npy" else _read_text(file, words)


def _look_up_words(story: Story, file: Path, vocabulary: Path | None, lower: bool) -> list[np.ndarray | None]:
    """Return the vector of each word of a story, None where the file has none."""
    spellings = {word: _list_spellings(word, lower) for word in dict.fromkeys(map(str, story.text))}
    parts = {part for options in spellings.values() for spelling in options for part in spelling}
    vectors = read_vectors(file, parts, vocabulary)
    by_word = {word: _first_vector(options, vectors) for word, options in spellings.items()}
    return [by_word[str(word)] for word in story.text]


def _list_spellings(word: str, lower: bool) -> list[list[str]]:
    """List how a word may be spelt in a file, best first, each spelling in parts.

    >>> _list_spellings("Don’t!", lower=True)
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
    return [spelling for i, spelling in enumerate(out) if any(spelling) and spelling not in out[:i]]


def _first_vector(spellings: list[list[str]], vectors: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Average the vectors of the first spelling's parts of which the file has any."""
    for parts in spellings:
        matches = [vectors[p] for p in parts if p in vectors]
        if matches:
            return np.asarray(np.mean(matches, axis=0))
    return None


def _read_text(file: Path, words: frozenset[str]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    rows = width = declared = 0
    with _open_lines(file) as lines:
        for number, raw in enumerate(lines, start=1):
            line = raw.rstrip(" \r\n").replace("\t", " ")
            if number == 1 and re.fullmatch(r"\d+ \d+", line):
                declared, width = map(int, line.split())
                continue
            width = width or line.count(" ")
            if width < 1 or line.count(" ") < width:
                raise SettingsError(
                    f"{file}, line {number} is not a word and {max(width, 1)} numbers. The file breaks off or is not "
                    "a text of word vectors; fetch it again."
                )
            rows += 1
            word = line.partition(" ")[0] if line.count(" ") == width else line.rsplit(" ", width)[0]
            if word in words and word not in out:
                out[word] = _parse_numbers(line[len(word) :], width, file, number)
    if rows == 0 or rows < declared:
        raise SettingsError(f"{file} breaks off after {rows} words of {declared or 'none'}. Fetch it again.")
    return out


@contextmanager
def _open_lines(file: Path) -> Iterator[TextIO]:
    """Open a text, gzipped or not; lines end at line feeds only, because other separators are words in GloVe."""
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


def _parse_numbers(cells: str, width: int, file: Path, number: int) -> np.ndarray:
    try:
        values = np.array(cells.split(), dtype=np.float64)
    except ValueError:
        values = np.empty(0)
    if len(values) != width or not np.isfinite(values).all():
        raise SettingsError(
            f"{file}, line {number} is not a word and {width} numbers. The file breaks off or is not a text of "
            "word vectors; fetch it again."
        )
    return values


def _read_array(file: Path, words: frozenset[str], vocabulary: Path | None) -> dict[str, np.ndarray]:
    if vocabulary is None:
        raise SettingsError(
            f"{file} is a table without words. Set vocabulary to a text with its words, one per line."
        )
    require_file(vocabulary, SettingsError, "vocabulary")
    try:
        table = open_npy(file)
        rows = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except RecordingError as error:
        raise SettingsError(str(error)) from error
    except (ValueError, OSError) as error:  # UnicodeError is a ValueError
        raise SettingsError(f"{file} or {vocabulary} cannot be read ({error}). Fetch them again.") from error
    if table.ndim != 2 or table.shape[1] == 0 or table.dtype.kind not in "fi" or len(table) != len(rows):
        raise SettingsError(
            f"{file} is a table of shape {table.shape} and type {table.dtype}; {vocabulary} has {len(rows)} words. "
            "The table needs one row of numbers per word."
        )
    out: dict[str, np.ndarray] = {}
    for row, line in enumerate(rows):
        word = line.removesuffix("\r")
        if word in words and word not in out:
            out[word] = np.array(table[row], dtype=np.float64)
            if not np.isfinite(out[word]).all():
                raise SettingsError(
                    f"{file}, row {row} ('{word}') has NaN or infinite numbers. Fetch it again."
                )
    return out
