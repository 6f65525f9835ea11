"""Words are joined as their language writes them."""

from __future__ import annotations

import pytest

from langcortex.stimulus.joining import guess_written_language, join_words, text_between

WRITTEN = {
    "fr": [
        ("j' ai vu l' homme qu' il aime", "j'ai vu l'homme qu'il aime"),
        ("aujourd' hui c’ est lui", "aujourd'hui c’est lui"),
        ("parle -t-il d' eux", "parle-t-il d'eux"),
        ("quelqu' un lorsqu' elle", "quelqu'un lorsqu'elle"),
    ],
    "it": [
        ("dell' amico un po' di vino", "dell'amico un po' di vino"),
        ("c' è l' acqua", "c'è l'acqua"),
    ],
    "ca": [("l' home d' aquí", "l'home d'aquí")],
    "en": [
        ("I do n't know it 's fine", "I don't know it's fine"),
        ("they ’re gon na go o' clock", "they’re gonna go o'clock"),
        ("the dogs' tails goin' home", "the dogs' tails goin' home"),
        ("well- known two- and three-year", "well-known two- and three-year"),
        ("'t was late y' all", "'twas late y'all"),
        ("rock 'n' roll 'cause", "rock 'n' roll 'cause"),
    ],
    "nl": [("ga 's morgens naar 't huis", "ga 's morgens naar 't huis")],
    "zh": [("我 六岁 的 时候， 看 iPhone 了。", "我六岁的时候，看iPhone了。")],
    "ja": [("彼 は カメラ を 「 見た」", "彼はカメラを「見た」"), ("時々 コーヒー ー", "時々コーヒーー")],
    "th": [("ฉัน ไป โรงเรียน", "ฉันไปโรงเรียน")],
    "km": [("ខ្ញុំ ទៅ", "ខ្ញុំទៅ")],
    "lo": [("ຂ້ອຍ ໄປ", "ຂ້ອຍໄປ")],
    "my": [("ကျွန်တော် သွား", "ကျွန်တော်သွား")],
    "ko": [("나는 학교에 간다", "나는 학교에 간다")],
    "hi": [("वह गया। वह", "वह गया। वह")],
    "ar": [("هل ذهب؟ نعم", "هل ذهب؟ نعم")],
}


@pytest.mark.parametrize(("language", "pairs"), WRITTEN.items())
def test_words_are_joined_as_the_language_writes_them(language, pairs):
    for tokens, written in pairs:
        assert join_words(tokens.split(), language) == written
        assert join_words(tokens.split(), f"{language.upper()}-XX") == written


@pytest.mark.parametrize(
    ("tokens", "language"),
    [
        ("je n' ai pas vu le chat dans l' arbre", "fr"),
        ("il vino dell' amico che non è di casa", "it"),
        ("once when I was six years old I saw a picture in the book", "en"),
        ("ich war nicht in der Stadt und sie ist da", "de"),
        ("他 走 了", "zh"),
        ("彼 は 言っ た", "ja"),
        ("ฉัน ไป", "th"),
    ],
)
def test_the_language_is_guessed_from_script_and_frequent_words(tokens, language):
    assert guess_written_language(tokens.split()) == language


def test_the_first_word_has_nothing_before_it():
    assert text_between(["a", "b"]) == ["", " "]
    assert text_between(["a"]) == [""]
    assert text_between([]) == []


def test_a_blank_follows_a_straight_quotation_mark_that_closes() -> None:
    words = ["He", "said", '"stay,"', "and", '"go."', "Then", '"why?"']
    assert text_between(words) == ["", *[" "] * 6]
    assert text_between(['"', "Stay", "here"]) == ["", "", " "]
    for text in ("„Haus,“ sagte sie", "»Haus,« sagte sie", "”hus,” sade hon", "«casa,» disse"):
        assert text_between(text.split()) == ["", *[" "] * (len(text.split()) - 1)]


def test_the_text_of_the_demo_stays_what_it_was() -> None:
    """What a model reads of the demo's story, character by character, and its sentences."""
    import hashlib

    from langcortex.simulation.demo import demo_story

    story = demo_story()
    text = "|".join("\x1f".join(map(str, column)) for column in (story.text, story.before, story.sentence))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "a97a9cb9e12dbae7"
