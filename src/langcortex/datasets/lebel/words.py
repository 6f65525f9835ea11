"""The words of LeBel et al. 2023: TextGrids with marks of noise among the words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from langcortex.errors import StoryError
from langcortex.stimulus.textgrid import Tier, read_interval_tiers, read_tier

MARKS = frozenset({"sentence_start", "sentence_end", "br", "lg", "ls", "ns", "sp"})


def read_words(path: Path) -> pd.DataFrame:
    """Read the words of one TextGrid of the corpus; see `read_word_tier`."""
    return read_word_tier(path).intervals


def read_word_tier(path: Path) -> Tier:
    """Read the tier of words of one TextGrid of the corpus; only this tier is judged.

    The tier is the one whose name contains "word", or else the second. Marks that are no words (``sp``, ``{BR}``,
    ``sentence_start``, ...) become pauses, and only ``sp`` ends a sentence.

    Returns
    -------
    Tier, with one row per interval: word (empty or ``sp`` where there is none), onset and duration in seconds
    since the sound began; and what was mended

    Raises
    ------
    StoryError : the file is absent or empty, breaks off, or is no TextGrid of words
    """
    names = read_interval_tiers(path)
    word_tiers = [i for i, name in enumerate(names) if "word" in name.lower()]
    if not word_tiers and len(names) < 2:
        raise StoryError(
            f"{path} has no tier of words: its interval tiers are {', '.join(names) or 'none'}. Fetch it again."
        )
    tier = read_tier(path, word_tiers[0] if word_tiers else 1)
    table = tier.intervals.assign(word=[_replace_mark(word) for word in tier.intervals["word"]])
    return Tier(tier.name, table, tier.remarks)


def _replace_mark(label: str) -> str:
    mark = label.lower().strip("{}").strip()
    if mark not in MARKS:
        return label
    return "sp" if mark == "sp" else ""
