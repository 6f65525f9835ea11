"""Positions, counted by hand."""

import numpy as np
import pytest

from langcortex.errors import SettingsError
from langcortex.features.controls.position import (
    position_in_run,
    position_in_sentence,
    position_onehot,
    position_ramps,
    trend,
)
from langcortex.stimulus.story import make_story


@pytest.fixture
def told():
    words = {"a": ["One", "two", "three.", "Four", "five.", "Six."], "b": ["Seven", "eight."]}
    onsets = {"a": np.array([0.0, 1, 2, 4, 5, 10]), "b": np.array([0.0, 1])}
    return make_story(words, onsets, {r: np.full(len(w), 0.5) for r, w in words.items()})


def test_words_are_numbered_within_their_sentence(told):
    assert position_in_sentence(told).values[:, 0].tolist() == [0, 1, 2, 0, 1, 0, 0, 1]
    relative = position_in_sentence(told, relative=True)
    assert relative.values[:, 0].tolist() == [0, 0.5, 1, 0, 1, 0, 0, 1]


def test_sentences_are_numbered_within_their_run(told):
    assert position_in_run(told).values[:, 0].tolist() == [0, 1, 2, 0]
    assert position_in_run(told, relative=True).values[:, 0].tolist() == [0, 0.5, 1, 0]


def test_a_onehot_marks_each_place_and_its_last_column_all_later_ones(told):
    marks = position_onehot(told, width=2)
    assert marks.values.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0], [0, 1], [1, 0], [1, 0], [0, 1]]
    assert marks.ids.tolist() == told.ids.tolist()
    of_run = position_onehot(told, width=4, within="run")
    assert of_run.values.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    assert of_run.ids.tolist() == told.sentences.ids.tolist()


def test_a_smoothed_onehot_spreads_each_mark_and_loses_none(told):
    sharp, wide = position_onehot(told, width=5).values, position_onehot(told, width=5, sigma=1.0).values
    np.testing.assert_allclose(wide.sum(axis=1), 1.0)
    assert wide[0, 1] > wide[0, 2] > 0 == sharp[0, 1]


def test_ramps_rise_to_their_own_height(told):
    assert position_ramps(told, width=2).values.tolist() == [[0, 0], [1, 1], [1, 2], [0, 0]]


def test_a_trend_runs_from_minus_one_to_one_in_every_run(told):
    values = trend(told, degree=2).values
    x = np.array([-1.0, -0.2, 1.0, -1.0])  # sentences begin at 0, 4 and 10 s
    np.testing.assert_allclose(values, np.stack([x, (3 * x**2 - 1) / 2], axis=1))


def test_where_every_sentence_is_a_word_there_is_no_place_within_one(told):
    for make in (position_in_sentence, position_onehot):
        with pytest.raises(SettingsError, match="has one word per sentence"):
            make(told.group_by("words"))


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (position_onehot, {"within": "book"}, "within sentence or run, not 'book'"),
        (position_onehot, {"width": 0}, "a width from 1 and a sigma from 0, not 0 and 0"),
        (position_onehot, {"sigma": -1.0}, "not 8 and -1"),
        (position_ramps, {"width": 0}, "position_ramps needs a width from 1, not 0"),
        (trend, {"degree": 0}, "trend needs a degree from 1, not 0"),
    ],
)
def test_impossible_options_are_errors(told, make, options, sentence):
    with pytest.raises(SettingsError, match=sentence):
        make(told, **options)
