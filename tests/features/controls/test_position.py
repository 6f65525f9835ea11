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
def counted():
    words = {"a": ["One", "two", "three.", "Four", "five.", "Six."], "b": ["Seven", "eight."]}
    onsets = {"a": np.array([0.0, 1, 2, 4, 5, 10]), "b": np.array([0.0, 1])}
    return make_story(words, onsets, {r: np.full(len(w), 0.5) for r, w in words.items()})


def test_words_are_numbered_within_their_sentence(counted):
    assert position_in_sentence(counted).values[:, 0].tolist() == [0, 1, 2, 0, 1, 0, 0, 1]
    relative = position_in_sentence(counted, relative=True)
    assert relative.values[:, 0].tolist() == [0, 0.5, 1, 0, 1, 0, 0, 1]


def test_sentences_are_numbered_within_their_run(counted):
    assert position_in_run(counted).values[:, 0].tolist() == [0, 1, 2, 0]
    assert position_in_run(counted, relative=True).values[:, 0].tolist() == [0, 0.5, 1, 0]


def test_a_onehot_has_a_column_per_position_and_the_last_for_all_later_ones(counted):
    marks = position_onehot(counted, width=2)
    assert marks.values.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0], [0, 1], [1, 0], [1, 0], [0, 1]]
    assert marks.ids.tolist() == counted.ids.tolist()
    of_run = position_onehot(counted, width=4, within="run")
    assert of_run.values.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    assert of_run.ids.tolist() == counted.sentences.ids.tolist()


def test_a_smoothed_onehot_spreads_over_neighbours_and_still_sums_to_one(counted):
    sharp, wide = (
        position_onehot(counted, width=5).values,
        position_onehot(counted, width=5, sigma=1.0).values,
    )
    np.testing.assert_allclose(wide.sum(axis=1), 1.0)
    assert wide[0, 1] > wide[0, 2] > 0 == sharp[0, 1]


def test_ramps_rise_to_the_number_of_their_column(counted):
    assert position_ramps(counted, width=2).values.tolist() == [[0, 0], [1, 1], [1, 2], [0, 0]]


def test_a_trend_runs_from_minus_one_to_one_in_every_run(counted):
    values = trend(counted, degree=2).values
    x = np.array([-1.0, -0.2, 1.0, -1.0])  # sentences begin at 0, 4 and 10 s
    np.testing.assert_allclose(values, np.stack([x, (3 * x**2 - 1) / 2], axis=1))


def test_sentences_of_one_word_have_no_position_within(counted):
    for make in (position_in_sentence, position_onehot):
        with pytest.raises(SettingsError, match="has one word per sentence"):
            make(counted.group_by("words"))


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
def test_impossible_options_are_errors(counted, make, options, sentence):
    with pytest.raises(SettingsError, match=sentence):
        make(counted, **options)
