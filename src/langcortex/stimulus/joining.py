"""What stands between two words: a blank, or nothing, as the language writes them."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from langcortex.stimulus.labels import OPENING
from langcortex.stimulus.sentences import guess_language

# scripts without blanks between words, by the first word of the names of their characters
UNSPACED = {
    "CJK": "han", "IDEOGRAPHIC": "han", "HIRAGANA": "han", "KATAKANA": "han", "KATAKANA-HIRAGANA": "han", "BOPOMOFO": "han",
    "THAI": "thai", "LAO": "lao", "KHMER": "khmer", "MYANMAR": "burmese", "TIBETAN": "tibetan", "JAVANESE": "javanese",
}  # fmt: skip
# frequent words that tell languages of the Latin script apart
FREQUENT = {
    "en": "the and of to was he that his with had it you for said",
    "fr": "le les et des est une que qui dans il pas je vous était",
    "it": "il che di della una per non gli sono era con ho più",
    "de": "der die und das ist nicht ein ich sie mit war den",
    "nl": "het een van dat niet ik zijn hij op voor was de met",
    "es": "el los que y una por se las no era con del muy",
    "pt": "os que uma não com ele era do da em para se ao",
    "ca": "els que una amb per les és del no era va molt",
}
# elided words that are none in languages which leave a blank after an apostrophe
_ELIDED = frozenset(
    [
        "j",
        "l",
        "d",
        "c",
        "qu",
        "jusqu",
        "lorsqu",
        "puisqu",
        "quoiqu",
        "aujourd",
        "quelqu",
        "dell",
        "nell",
        "dall",
        "sull",
        "quell",
        "y",
        "ma",
    ]
)
_TRUNCATED = frozenset(
    ["po", "mo", "di", "fa", "va", "sta", "da", "be", "to", "vo", "te", "ca", "de", "ne", "co"]
)  # Italian: "un po' di"
_ENGLISH_CLITIC = re.compile(r"(?:['’](?:s|d|m|t|re|ve|ll)|n['’]t)(?!\w)", re.IGNORECASE)
_HALVES = {
    ("gon", "na"), ("wan", "na"), ("got", "ta"), ("gim", "me"), ("lem", "me"), ("o'", "clock"), ("d'", "ye"),
    ("'t", "was"), ("'t", "is"), ("'t", "were"), ("'t", "will"), ("y'", "all"), ("ma'", "am"),
}  # fmt: skip
_SUSPENDED = frozenset(
    ["and", "or", "und", "oder", "bzw", "et", "ou", "to", "bis", "y", "o", "e", "u", "en", "of", "a", "i"]
)  # "two- and three-year"


def guess_written_language(words: Sequence[str]) -> str:
    """Guess the language of words by their script and, in the Latin script, by frequent and by elided words.

    >>> guess_written_language("je n' ai pas vu le chat dans l' arbre et il dort".split())
    'fr'
    """
    language = guess_language(" ".join(map(str, words)))
    if language != "en":
        return language
    counts = Counter(str(word).lower().replace("’", "'").strip('.,!?;:"«»') for word in words)
    votes = {code: sum(counts[word] for word in common.split()) for code, common in FREQUENT.items()}
    votes["fr"] += sum(counts[f"{word}'"] for word in ("j", "qu", "n", "c", "jusqu", "aujourd"))
    votes["it"] += sum(counts[f"{word}'"] for word in ("dell", "un", "all", "nell", "dall", "sull", "quell"))
    best = max(votes, key=lambda code: votes[code])
    return best if votes[best] > votes["en"] + 1 else "en"


def primary_language(language: str) -> str:
    """Return the language of a code without its country or script.

    >>> primary_language("zh-Hans"), primary_language("EN_us")
    ('zh', 'en')
    """
    return re.split(r"[-_]", language.lower())[0]


def text_between(words: Sequence[str], language: str | None = None) -> list[str]:
    """Return what stands before each word: nothing at the first, a blank or nothing at the others.

    Words of scripts without blanks, elided words ("l'", "dell'"), clitics ("n't", "'s", "-il") and what stands at a dash or
    an apostrophe inside a word are joined.

    Parameters
    ----------
    words : (n_words,) as written, with the marks that belong to them
    language : a code such as "en", "fr", "zh"; guessed where None

    >>> text_between(["I", "do", "n't", "know", "."])
    ['', ' ', '', ' ', ' ']
    >>> text_between(["六岁", "的", "时候，"])
    ['', '', '']
    """
    language = primary_language(language or guess_written_language(words))
    gaps = ["" if _joins(str(a), str(b), language) else " " for a, b in itertools.pairwise(words)]
    return ["", *gaps] if len(words) else []


def join_words(words: Sequence[str], language: str | None = None) -> str:
    """Join words to a text, as the language writes them.

    >>> join_words(["l'", "homme", "qu'", "il", "a", "vu"], "fr")
    "l'homme qu'il a vu"
    """
    gaps = text_between(words, language)
    return "".join(gap + str(word) for gap, word in zip(gaps, words, strict=True))


def _joins(first: str, second: str, language: str) -> bool:
    """Whether nothing stands between two words."""
    if not first or not second:
        return False
    if _are_unspaced(first, second, language):
        return True
    a = first.lower().replace("’", "'").lstrip("\"'«“‘(") or first
    b = second.lower().replace("’", "'")
    # a mark after letters closes: “Haus,“ in German, "here" in English
    opens = first[-1] in OPENING and not any(map(str.isalnum, first))
    if opens or first[-1] == "/" or second[0] == "/":
        return True
    if _elides(a, language) and b[0].isalnum():
        return True
    bare = re.sub(r"\W+$", "", b)
    if (a, bare) in _HALVES or (first.lower().replace("’", "'"), bare) in _HALVES:
        return language in ("en", "")
    return _is_clitic(a, b, language) or _is_cut(first, b)


def _elides(word: str, language: str) -> bool:
    """Whether a word ends in an apostrophe that stands for its vowel, so that the next word follows without a blank."""
    if not word.endswith("'") or not word[:-1]:
        return False
    stem = word[:-1]
    if language in ("it", "ca", "fr", "oc"):
        return stem not in (_TRUNCATED if language == "it" else ()) and stem[-1].isalpha()
    return re.split(r"[\W_]+", stem)[-1] in _ELIDED


def _is_clitic(first: str, second: str, language: str) -> bool:
    """Whether a word is written at the end of the one before: "n't", "'s", "-il"."""
    if not first[-1].isalnum() and first[-1] != "'":
        return False
    if second[0] == "-" and len(second) > 1 and second[1].isalpha():
        return True
    if second[0] == "'" and language == "fr":
        return len(second) > 1 and second[1].isalpha()
    return language != "nl" and _ENGLISH_CLITIC.match(second) is not None


def _is_cut(first: str, second: str) -> bool:
    """Whether a word is the first half of a compound: "well-" before "known", not "two-" before "and"."""
    return (
        len(first) > 1
        and first[-1] in "-‐‑"
        and first[-2].isalpha()
        and second[0].isalpha()
        and re.sub(r"\W+$", "", second) not in _SUSPENDED
    )


def _are_unspaced(first: str, second: str, language: str) -> bool:
    """Whether two words meet in a script without blanks."""
    if language == "ko":
        return False
    if _is_wide(first[-1]) or _is_wide(second[0]):
        return True
    a, b = _script(first[::-1]), _script(second)
    if a and a == b:
        return True
    return language in ("zh", "ja", "yue") and "han" in (a, b)


def _is_wide(character: str) -> bool:
    """Whether a character is punctuation as wide as a Chinese character, which leaves its own room."""
    return unicodedata.category(character)[0] == "P" and unicodedata.east_asian_width(character) in "WF"


def _script(characters: str) -> str:
    """Return the unspaced script of the first letter or digit; "" where it is another."""
    for c in characters:
        if unicodedata.category(c)[0] in "LNM":
            name = unicodedata.name(c, "")
            return UNSPACED.get(name.split(" ")[0], "") or (
                "han" if name.startswith("HALFWIDTH KATA") else ""
            )
    return ""
