"""Readers of the annotation files of Le Petit Prince: words, trees, dependencies, coreference, prosody.

OpenNeuro ds003643 (doi:10.18112/openneuro.ds003643.v2.0.7), ``annotation/{EN,CN,FR}``. Several files are called .csv
but have another format. The English words, trees, dependencies and coreference were checked on the published files;
the columns of prosody are those of the data descriptor (doi:10.1038/s41597-022-01625-7, figure 2); Chinese and
French tables are read by the same rules and were not at hand.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from langcortex.errors import StoryError
from langcortex.paths import require_file

SECTIONS = tuple(f"section{k}" for k in range(1, 10))
NUMBERS = ("logfreq", "top_down", "bottom_up", "left_corner")
_LEAF = re.compile(r"\([^() \t]+ +([^() \t]+) *\)")
_RELATION = re.compile(r"(\S+?)\((.+)-([0-9]{1,9})'*, (.+)-([0-9]{1,9})'*\)")


class Tree(NamedTuple):
    """The constituents of one sentence.

    Attributes
    ----------
    leaves : the words
    text : the tree in brackets
    """

    leaves: tuple[str, ...]
    text: str


def read_words(path: Path) -> pd.DataFrame:
    """Read ``lpp{L}_word_information.csv``: one row per word, in order.

    Words such as "null" stay words; words and lemmas are as published, the TRUE of a spreadsheet included.

    Returns
    -------
    (n_rows,) word; onset and offset in seconds since the section's sound began; run, e.g. "section1"; and, if
    the file has them, lemma, pos, and the numbers logfreq, top_down, bottom_up, left_corner (NaN where empty).
    The index is the number of the row in the file, from 0, as in the first column

    Raises
    ------
    StoryError : the file is missing, is no such table, or breaks off; times are no numbers or go backwards
    """
    table = _read_cells(path)
    missing = [c for c in ("word", "onset", "offset", "section") if c not in table]
    if missing:
        raise StoryError(
            f"{path} has no column '{missing[0]}'; its columns are: {', '.join(table.columns)}. Fetch the published file again."
        )
    table["word"] = table["word"].str.strip()
    for name in ("onset", "offset"):
        table[name] = _parse_seconds(table, name, path)
    for name in (n for n in NUMBERS if n in table):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    table["run"] = "section" + table.pop("section").str.strip()
    _check_order(table, path)
    return table.drop(columns=[c for c in table if not c])


def read_trees(path: Path) -> list[Tree]:
    """Read ``lpp{L}_tree.csv``: one bracketed tree per line, one line per sentence.

    In English the 15,376 leaves are the rows of the word table, one to one and in order.

    Raises
    ------
    StoryError : the file is missing, or a line is not a complete tree
    """
    trees = []
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        leaves = tuple(_LEAF.findall(line))
        if not leaves or not _is_balanced(line.strip()):
            raise StoryError(
                f"{path}, line {number} is not a complete tree in brackets. The file breaks off or was changed; fetch it again."
            )
        trees.append(Tree(leaves, line.strip()))
    if not trees:
        raise StoryError(f"{path} has no trees. Fetch it again.")
    return trees


def read_dependencies(path: Path) -> pd.DataFrame:
    """Read ``lpp{L}_dependency.csv``: one ``relation(head-i, dependent-j)`` per line, a blank line after each sentence.

    Returns
    -------
    (n_relations,) sentence, counted from 0; relation, e.g. "nmod:in"; head and dependent, the positions of tokens in
    the sentence from 1, and 0 for the root; head_word and dependent_word. A token may have several heads. Positions
    count tokens: see `leaves_of_tokens` for those of several words

    Raises
    ------
    StoryError : the file is missing, or a line is no relation
    """
    rows: list[tuple[int, str, int, int, str, str]] = []
    sentence, inside = 0, False
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            sentence, inside = sentence + inside, False
            continue
        match = _RELATION.fullmatch(line.strip(" \t"))
        if match is None:
            raise StoryError(
                f"{path}, line {number} is not a relation such as 'nsubj(saw-9, i-8)': '{line.strip()[:40]}'. "
                "The file breaks off or was changed; fetch it again."
            )
        relation, head_word, head, word, dependent = match.groups()
        rows.append((sentence, relation, int(head), int(dependent), head_word, word))
        inside = True
    if not rows:
        raise StoryError(f"{path} has no dependencies. Fetch it again.")
    columns = ["sentence", "relation", "head", "dependent", "head_word", "dependent_word"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def leaves_of_tokens(relations: pd.DataFrame) -> dict[int, range]:
    """Map the dependency tokens of a sentence to the leaves of its tree.

    A token is one leaf, except where the parser joined several numbers with no-break spaces (once, in the
    English sentence that lists asteroids): it is then as many leaves, and the following ones are shifted.

    Parameters
    ----------
    relations : the rows of `read_dependencies` of one sentence

    Returns
    -------
    position of the token, from 1 → positions of its leaves, from 0
    """
    words = dict(zip(relations["head"], relations["head_word"], strict=True))
    words |= dict(zip(relations["dependent"], relations["dependent_word"], strict=True))
    leaves, start = {}, 0
    for position in range(1, max(words) + 1):
        size = 1 + str(words.get(position, "")).count("\u00a0")
        leaves[position] = range(start, start + size)
        start += size
    return leaves


def read_coreference(path: Path) -> pd.DataFrame:
    """Read ``lpp{L}_coreference.csv``: brat standoff, with tabs between fields.

    Characters are counted in the lemmas of the word table with one space between them (checked on all 4,882
    English mentions).

    Returns
    -------
    (n_mentions,) id, e.g. "T1"; start and end, characters from 0, without the end; text; chain, the number of
    the chain of mentions of one thing, from 0 in the order of the file, and <NA> for a mention in none

    Raises
    ------
    StoryError : the file is missing, a line is neither mention nor chain, or a chain names an unknown mention
    """
    mentions: list[tuple[str, int, int, str]] = []
    chain_of: dict[str, int] = {}
    chains = 0
    for number, line in enumerate(_read_lines(path), start=1):
        mention = re.fullmatch(r"(T[0-9]+)\tMention ([0-9]{1,9}) ([0-9]{1,9})\t(.+)", line)
        if mention:
            name, start, end, text = mention.groups()
            mentions.append((name, int(start), int(end), text))
        elif re.fullmatch(r"\*\tCoreference( T[0-9]+)+", line):
            chain_of |= dict.fromkeys(line.split()[2:], chains)
            chains += 1
        elif line.strip():
            raise StoryError(
                f"{path}, line {number} is neither a mention nor a chain: '{line[:40]}'. The file breaks off or was changed; fetch it again."
            )
    names = {m[0] for m in mentions}
    unknown = [name for name in chain_of if name not in names]
    if unknown or not mentions:
        problem = (
            f"a chain names mention {unknown[0]}, which is absent" if unknown else "there are no mentions"
        )
        raise StoryError(f"{path}: {problem}. Fetch the file again.")
    table = pd.DataFrame(mentions, columns=pd.Index(["id", "start", "end", "text"]))
    table["chain"] = pd.array([chain_of.get(m[0], pd.NA) for m in mentions], dtype="Int64")
    return table


def read_prosody(path: Path) -> pd.DataFrame:
    """Read ``lpp{L}_prosody.csv``: pitch and loudness of the sound, in steps of 10 ms.

    Returns
    -------
    (n_rows,) run, e.g. "section1"; time in seconds since the section's sound began; f0 in Hz, NaN where unvoiced
    (0 in the file); intensity (root mean square)

    Raises
    ------
    StoryError : the file is missing or is no such table
    """
    require_file(path, StoryError, "prosody table")
    try:
        raw = pd.read_csv(path, dtype=np.float64, encoding="utf-8-sig", skipinitialspace=True)
    except ValueError as error:  # not text, not a table, or not numbers
        raise StoryError(f"{path} cannot be read as a table of numbers ({error}). Fetch it again.") from error
    missing = [c for c in ("time", "f0", "intensity", "section") if c not in raw]
    if missing:
        raise StoryError(
            f"{path} has no column '{missing[0]}'; its columns are: {', '.join(map(str, raw.columns))}. Fetch it again."
        )
    invalid = np.flatnonzero(~np.isfinite(raw["time"]) | ~raw["section"].isin(range(1, len(SECTIONS) + 1)))
    if len(invalid):
        raise StoryError(
            f"{path}, row {invalid[0] + 2} has no time, or no section from 1 to 9. Fetch the file again."
        )
    run = "section" + raw["section"].astype(int).astype(str)
    return pd.DataFrame(
        {"run": run, "time": raw["time"], "f0": raw["f0"].replace(0.0, np.nan), "intensity": raw["intensity"]}
    )


def _read_lines(path: Path) -> list[str]:
    """Read a file, split at line ends only: no-break spaces and the like belong to words."""
    require_file(path, StoryError, "annotation")
    content = path.read_bytes()
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError as error:
        raise StoryError(f"{path} is not text ({error}). Fetch it again.") from error
    return text.replace("\r\n", "\n").split("\n")


def _read_cells(path: Path) -> pd.DataFrame:
    """Read a .csv as text, with rows as long as the header."""
    try:
        rows = [row for row in csv.reader(io.StringIO("\n".join(_read_lines(path)))) if row]
    except csv.Error as error:
        raise StoryError(f"{path} cannot be read as a table ({error}). Fetch it again.") from error
    if len(rows) < 2:
        raise StoryError(f"{path} has no rows. Fetch it again.")
    ragged = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if ragged is not None:
        raise StoryError(
            f"{path} breaks off or was changed: row {ragged + 1} has {len(rows[ragged])} cells but the header {len(rows[0])}. Fetch it again."
        )
    header = [name.strip() for name in rows[0]]
    duplicates = [name for name in header if header.count(name) > 1]
    if duplicates:
        raise StoryError(f"{path} has two columns called '{duplicates[0]}'. Fetch it again.")
    return pd.DataFrame(rows[1:], columns=pd.Index(header), dtype=str)


def _parse_seconds(table: pd.DataFrame, name: str, path: Path) -> np.ndarray:
    values: np.ndarray = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    invalid = np.flatnonzero(~np.isfinite(values))
    if len(invalid):
        row = int(invalid[0])
        raise StoryError(
            f"{path}, row {row + 2}: '{table[name].iloc[row]}' in column '{name}' is not a number of seconds. Fetch the file again."
        )
    return values


def _check_order(table: pd.DataFrame, path: Path) -> None:
    """Check that the nine sections are in order and that time runs forward in each."""
    runs: Sequence[str] = list(dict.fromkeys(table["run"]))
    changes = int((table["run"] != table["run"].shift()).sum())
    if tuple(runs) != SECTIONS or changes != len(SECTIONS):
        raise StoryError(
            f"{path} has sections {', '.join(r.removeprefix('section') for r in runs[:12])}; 1 to 9 are needed, each in one piece. Fetch it again."
        )
    back = (table["run"] == table["run"].shift()) & (table["onset"] < table["onset"].shift())
    invalid = np.flatnonzero(back | (table["offset"] < table["onset"]))
    if len(invalid):
        raise StoryError(
            f"{path}, row {invalid[0] + 2}: time runs backwards at '{table['word'].iloc[invalid[0]]}'. Fetch the file again."
        )


def _is_balanced(line: str) -> bool:
    """Whether a line is one pair of brackets that closes at its end and not before."""
    depth = 0
    for i, character in enumerate(line):
        depth += (character == "(") - (character == ")")
        if depth <= 0 and i < len(line) - 1:
            return False
    return depth == 0
