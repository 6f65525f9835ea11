"""What the labels of aligners and transcripts are: words, pauses, or marks of punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

# Labels that are pauses or noise, in small letters; * stands for any characters within a label. Only labels that cannot
# be words: "silence" can. Set story.pauses to change the list.
PAUSES = (
    "", "#", "##", "_", "sp", "sil", "spn", "nsn", "!sil", "<*>", "{*}", "[*]", "((*))", "sentence_start", "sentence_end",
)  # fmt: skip

# those of them that are silence, and need no remark
SILENCE = frozenset(
    [
        "",
        "#",
        "##",
        "_",
        "sp",
        "sil",
        "!sil",
        "<sil>",
        "<silence>",
        "<eps>",
        "<p>",
        "<p:>",
        "<pause>",
        "{p}",
        "{sl}",
        "{sp}",
        "[silence]",
        "[pause]",
        "<s>",
        "</s>",
        "sentence_start",
        "sentence_end",
    ]
)

OPENING = '"＂([{«‹“‘„‚「『《〈【〔（［｛〖〘⟨¿¡``'
DASHES = "-‐‑‒–—―⸺⸻~〜"
HYPHENS = "-‐‑"
QUOTES = {
    '"': '"',
    "＂": "＂",
    "“": "”",
    "„": "“”",
    "«": "»",
    "»": "«",
}  # what opens a quotation: what closes it
_SPOKEN = "&%@#*+＆％＠§"  # marks that are read out


class Word(NamedTuple):
    """A word with the marks of punctuation that belong to it.

    Attributes
    ----------
    label : the position of its label
    text : the word as written, with its marks
    """

    label: int
    text: str


def match_pauses(labels: Sequence[str], pauses: Sequence[str] = PAUSES) -> list[bool]:
    """Return whether each label is a pause, whatever its capitals.

    Parameters
    ----------
    labels : (n_labels,)
    pauses : labels, where * stands for any characters

    >>> match_pauses(["ran", "<eps>", "SPN", "[noise]", ""])
    [False, True, True, True, True]
    """
    parts = [".*".join(map(re.escape, pause.lower().split("*"))) for pause in pauses]
    pattern = re.compile("|".join(parts) if parts else r"(?!)", re.DOTALL)
    return [pattern.fullmatch(str(label).strip().lower()) is not None for label in labels]


def is_mark(label: str) -> bool:
    """Whether a label is punctuation alone: no letter, no digit, and nothing that is read out, such as "&".

    >>> is_mark(","), is_mark("''"), is_mark("&"), is_mark("5")
    (True, True, False, False)
    """
    return bool(label) and all(
        (unicodedata.category(c)[0] == "P" or c in "`~〜|") and c not in _SPOKEN for c in label
    )


def attach_marks(labels: Sequence[str], positions: Sequence[int]) -> list[Word]:
    """Attach marks of punctuation that are labels of their own to the word before or, if they open, to the word after.

    Parameters
    ----------
    labels : all labels
    positions : which of them are no pauses, in order

    >>> [word.text for word in attach_marks(["(", "I", "ran", ",", '"', "Stop", "!", '"'], range(8))]
    ['(I', 'ran,', '"Stop!"']
    """
    words: list[Word] = []
    front, inside = "", ""  # marks that wait for their word; the quotation mark that is open
    for i in positions:
        label = str(labels[i])
        if not is_mark(label):
            words.append(Word(i, front + label))
            front = ""
        elif front or not words or _opens(label, words[-1].text, inside):
            front += label
        else:
            gap = " " if label[0] in DASHES and label not in HYPHENS else ""
            words[-1] = words[-1]._replace(text=words[-1].text + gap + label)
        for c in label:
            inside = "" if c in QUOTES.get(inside, "") else inside or (c if c in QUOTES else "")
    if front and words:
        words[-1] = words[-1]._replace(text=words[-1].text + front)
    return words


def _opens(mark: str, text: str, inside: str) -> bool:
    """Whether a mark belongs to the word after it; `text` is the word before, `inside` the quotation mark that is open."""
    if mark[0] in QUOTES.get(inside, ""):
        return False
    if mark[0] == "»":
        return not inside
    if mark in ("'", "’"):  # after a mark it opens, after a letter it is an apostrophe or closes
        return mark == "'" and text[-1] in ",:;—–" and "'" not in text
    return mark[0] in OPENING
