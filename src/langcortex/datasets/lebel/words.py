"""The words of LeBel et al. 2023: TextGrids with marks of noise among the words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from langcortex.errors import StoryError
from langcortex.stimulus.textgrid import read_interval_tiers, read_textgrid

MARKS = frozenset({"sentence_start", "sentence_end", "br", "lg", "ls", "ns", "sp"})


def read_words(path: Path) -> pd.DataFrame:
    """Read the words of one of the corpus's TextGrids.

    The tier is the one whose name says "word", or else the second. Marks that are no words (``sp``, ``{BR}``,
    ``sentence_start``, ...) become pauses, and only ``sp`` ends a sentence.

    Returns
    -------
    DataFrame with a row an interval: word (empty or ``sp`` where none is said), onset and duration in seconds since
    the sound began

    Raises
    ------
    StoryError : the file is absent or empty, breaks off, or is no TextGrid of words
    """
    names = read_interval_tiers(path)
    named = [i for i, name in enumerate(names) if "word" in name.lower()]
    if not named and len(names) < 2:
        raise StoryError(
            f"{path} has no tier of words: its interval tiers are {', '.join(names) or 'none'}. Fetch it again."
        )
    table = read_textgrid(path, named[0] if named else 1)
    table["word"] = [_said(word) for word in table["word"]]
    return table


def _said(label: str) -> str:
    mark = label.lower().strip("{}").strip()
    if mark not in MARKS:
        return label
    return "sp" if mark == "sp" else ""
