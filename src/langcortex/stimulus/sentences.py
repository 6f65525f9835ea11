"""Where sentences of written text end, in the language it is written in (sentencex, by the Wikimedia Foundation)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from langcortex.errors import StoryError

# titles and abbreviations after which a sentence goes on, beside those that sentencex knows
ABBREVIATIONS = {
    "en": (
        "i.e",
        "e.g",
        "cf",
        "vs",
        "viz",
        "vol",
        "approx",
        "messrs",
        "mx",
        "esq",
        "ave",
        "blvd",
        "ft",
        "mt",
    ),
    "fr": (
        "m",
        "mm",
        "mme",
        "mmes",
        "mlle",
        "mlles",
        "me",
        "st",
        "ste",
        "dr",
        "pr",
        "av",
        "bd",
        "cf",
        "p",
        "art",
    ),
    "nl": ("mevr", "mw", "dhr", "mr", "dr", "prof", "st"),
    "es": ("sr", "sra", "srta", "dr", "dra", "ud", "uds"),
    "it": ("sig", "sigg", "dott", "prof", "avv", "ing"),
    "pt": ("sr", "sra", "dr", "dra"),
}
SCRIPTS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
    "HANGUL": "ko",
    "ARABIC": "ar",
    "DEVANAGARI": "hi",
    "THAI": "th",
    "LAO": "lo",
    "KHMER": "km",
    "MYANMAR": "my",
}
ELLIPSIS = re.compile(r"…[\"'”’»)\]]*\s+(?=[\"'“‘«(¿¡]*\w)")
CLOSING = "\"'”’»›」』）)]】"


def guess_language(text: str) -> str:
    """Guess a language by the script that most letters are written in; English for the Latin alphabet.

    >>> guess_language("六岁的时候"), guess_language("Once when I was six")
    ('zh', 'en')
    """
    names = Counter(unicodedata.name(letter, "").split(" ")[0].split("-")[0] for letter in text[:20_000])
    counts = Counter(dict.fromkeys(SCRIPTS.values(), 0))
    for script, language in SCRIPTS.items():
        counts[language] += names[script]
    if counts["ja"] > 0.1 * counts["zh"] > 0:  # kana among the characters
        return "ja"
    language, count = counts.most_common(1)[0]
    return language if count > names["LATIN"] else "en"


def number_sentences(words: Sequence[str], before: Sequence[str], language: str | None = None) -> np.ndarray:
    """Number the sentence of each word.

    Parameters
    ----------
    words : (n_words,) as written, with the marks that belong to them
    before : (n_words,) what stands between a word and the one before it, such as a blank
    language : a code such as "en", "fr", "zh"; guessed from the script where None

    Returns
    -------
    (n_words,) int, from 0; a sentence ends between two words, closing quotes with it

    >>> number_sentences("Mr. Hale left at 9 a.m. He ran.".split(), [" "] * 8).tolist()
    [0, 0, 0, 0, 0, 0, 1, 1]
    """
    if not len(words):
        return np.empty(0, dtype=np.int64)
    pieces = [
        text for gap, word in zip(["", *before[1:]], words, strict=True) for text in (str(gap), str(word))
    ]
    begin = np.cumsum([0, *map(len, pieces)])[1:-1:2]
    sentence = np.searchsorted(sentence_ends("".join(pieces), language), begin, side="right")
    return np.unique(sentence, return_inverse=True)[1].astype(np.int64)


def sentence_ends(text: str, language: str | None = None) -> np.ndarray:
    """Find where the sentences of a text end.

    Parameters
    ----------
    text : as written
    language : a code such as "en", "fr", "zh"; guessed from the script where None

    Returns
    -------
    (n_sentences,) the place after each sentence, counted in characters; blanks belong to the sentence before them

    Raises
    ------
    StoryError : no sentences are known in the language

    >>> sentence_ends("Mr. Hale ran. He fell.").tolist()
    [14, 22]
    """
    import sentencex

    language = (language or guess_language(text)).lower().replace("_", "-").split("-")[0]
    try:
        segments = list(sentencex.segment(language, text))
    except (ValueError, KeyError, TypeError) as error:
        raise StoryError(
            f"Sentences cannot be told apart in the language '{language}' ({error}). Set story.language, e.g. to \"en\"."
        ) from error
    if "".join(segments) != text:
        raise StoryError(
            "Sentences cannot be told apart: the splitter changed the text. Mark them in a sentence column of the story file."
        )
    segments = [part for segment in segments for part in _split_ellipses(segment)]
    ends: np.ndarray = np.cumsum([len(segment) for segment in _joined(segments, language)])
    return ends


def _split_ellipses(segment: str) -> list[str]:
    """Split a segment after "…" where a capital follows, outside of quotation marks."""
    parts, start = [], 0
    for match in ELLIPSIS.finditer(segment):
        following = next(c for c in segment[match.end() :] if c.isalnum() or c == "_")
        head = segment[start : match.end()]
        is_quoted = head.count('"') % 2 or any(head.count(a) > head.count(b) for a, b in ("“”", "«»", "()"))
        if following.isupper() and not is_quoted:
            parts.append(head)
            start = match.end()
    return [*parts, segment[start:]]


def _joined(segments: Sequence[str], language: str) -> list[str]:
    """Join segments that were cut after an abbreviation, and marks that close the sentence before."""
    out: list[str] = []
    for segment in segments:
        if out and (_ends_in_abbreviation(out[-1], language) or not segment.strip().strip(CLOSING)):
            out[-1] += segment
        else:
            out.append(segment)
    return out


def _ends_in_abbreviation(segment: str, language: str) -> bool:
    last = segment.split()[-1].lstrip("\"'“‘«(") if segment.split() else ""
    return last.endswith(".") and last[:-1].lower() in ABBREVIATIONS.get(language, ())
