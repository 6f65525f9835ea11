"""Sentences end where a reader of the language says they do."""

from __future__ import annotations

import pytest

from langcortex.stimulus.sentences import guess_language, number_sentences


def _sentences(text, language=None):
    words = text.split()
    numbers = number_sentences(words, [" "] * len(words), language)
    return [
        " ".join(w for w, n in zip(words, numbers, strict=True) if n == k) for k in range(numbers.max() + 1)
    ]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["Mr. Hale met Dr. J. R. Voss at 9 a.m. in the U.S. embassy.", "He left."]),
        ("en", ['"Where are you?" she asked.', '"Here!"', "He smiled."]),
        ("en", ['He said "I am here."', "Then he left...", "Nobody knew why!"]),
        ("en", ["It cost 3.5 dollars at St. John's, i.e. No. 5 of Mrs. Poole vs. Prof. Lee."]),
        ("fr", ["M. Dupont est arrivé.", "Il est parti.", "J'ai vu Mme. Curie et Mlle. Anne."]),
        ("fr", ["« Où es-tu ? » dit-elle.", "Il sourit."]),
        ("de", ["Z.B. am 3. Oktober kam Dr. Müller.", "Er ging."]),
        ("es", ["El Sr. Pérez llegó.", "¿Qué dijo la Sra. Ana?", "¡Nada!"]),
        ("hi", ["यह किताब है।", "वह गया।"]),
        ("ar", ["مرحبا؟", "كيف حالك.", "جيد؟"]),
        ("ur", ["یہ ایک کتاب ہے۔", "وہ گیا۔"]),
    ],
)
def test_abbreviations_quotes_and_marks_of_the_language(language, expected):
    assert _sentences(" ".join(expected), language) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["我", "六岁。", "“你好。”", "他", "走了！"], [0, 0, 1, 2, 2]),
        (["「こんにちは。」", "彼は", "言った。", "去った。"], [0, 1, 1, 2]),
    ],
)
def test_languages_without_blanks(words, expected):
    assert number_sentences(words, [""] * len(words)).tolist() == expected


def test_a_sentence_never_begins_inside_a_word():
    assert number_sentences(["Wait...what?", "No."], ["", " "]).tolist() == [0, 1]


def test_the_language_is_guessed_from_the_script():
    texts = {
        "六岁的时候看到": "zh",
        "こんにちは、彼は": "ja",
        "مرحبا كيف": "ar",
        "यह किताब": "hi",
        "Bonjour 世": "en",
    }
    assert {text: guess_language(text) for text in texts} == texts


def test_no_words_have_no_sentences():
    assert number_sentences([], []).tolist() == []
