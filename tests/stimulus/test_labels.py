"""Labels are words, pauses, or marks that belong to words."""

from __future__ import annotations

import pytest

from langcortex.stimulus.labels import PAUSES, attach_marks, is_mark, match_pauses


@pytest.mark.parametrize(
    "label",
    ["", " ", "#", "sp", "SIL", "sil", "spn", "NSN", "<eps>", "<unk>", "<UNK>", "<sil>", "<p:>", "<usb>", "{SL}", "{LG}", "{p}",
     "[noise]", "[laughter]", "[bracketed]", "((cough))", "!SIL", "sentence_start", "<cutoff>"],
)  # fmt: skip
def test_marks_of_aligners_are_pauses(label):
    assert match_pauses([label]) == [True]


@pytest.mark.parametrize(
    "label", ["silence", "spin", "space", "noise", "a", "(aside)", "[the", "king]", "…", ",", "unk", "pause"]
)
def test_what_may_be_a_word_is_no_pause(label):
    assert match_pauses([label]) == [False]


def test_the_list_of_pauses_can_be_changed():
    assert match_pauses(["xxx", "<eps>", "br", "#"], ["xxx", "b*"]) == [True, False, True, False]
    assert match_pauses(["#", ""], []) == [False, False]
    assert match_pauses(["a.b", "axb"], ["a.b"]) == [True, False]
    assert match_pauses(["x"], [*PAUSES, "x"]) == [True]


def _texts(labels):
    return [word.text for word in attach_marks(labels, range(len(labels)))]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["ran", ",", "then"], ["ran,", "then"]),
        (["He", "said", ",", '"', "Go", "!", '"', "Then", "left", "."], ["He", "said,", '"Go!"', "Then", "left."]),
        (["“", "Go", ".", "”", "She", "did", "."], ["“Go.”", "She", "did."]),
        (["«", "Oui", "»", "dit", "-il", "."], ["«Oui»", "dit", "-il."]),
        (["„", "Ja", "“", "sagte", "er"], ["„Ja“", "sagte", "er"]),
        (["»", "Ja", "«", "sagte", "er"], ["»Ja«", "sagte", "er"]),
        (["(", "I", ")", "ran", "...", ")"], ["(I)", "ran...)"]),
        (["¿", "Qué", "?"], ["¿Qué?"]),
        (["dogs", "'", "tails"], ["dogs'", "tails"]),
        (["``", "Go", "''", "he", "said"], ["``Go''", "he", "said"]),
        (["good", "—", "he", "said"], ["good —", "he", "said"]),
        (["他", "说", "：", "「", "好", "。", "」"], ["他", "说：", "「好。」"]),
                (["R", "&", "D"], ["R", "&", "D"]),
    ],
)  # fmt: skip
def test_marks_belong_to_the_word_that_they_are_written_at(labels, words):
    assert _texts(labels) == words


def test_a_word_keeps_the_position_of_its_label():
    assert [w.label for w in attach_marks(["(", "a", "<eps>", ",", "b"], [0, 1, 3, 4])] == [1, 4]


def test_marks_alone_are_no_words():
    assert _texts([".", '"', "..."]) == []
    assert [is_mark(label) for label in ("5", "%", "…", "।")] == [False, False, True, True]
