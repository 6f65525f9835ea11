"""Tables of a story's units, and words without a value."""

import numpy as np
import pytest

from langcortex.errors import StoryError
from langcortex.features.pieces import (
    count_within_groups,
    fill_with_run_mean,
    tabulate_sentences,
    tabulate_words,
)


def test_a_word_without_a_value_gets_the_mean_of_its_own_run(story):
    values = np.arange(2.0 * len(story)).reshape(-1, 2)
    values[3] = np.nan
    out = fill_with_run_mean(values, story, "a value")
    rows = np.setdiff1d(np.flatnonzero(story.run == "run-1"), [3])
    np.testing.assert_allclose(out[3], values[rows].mean(axis=0))
    np.testing.assert_array_equal(np.delete(out, 3, axis=0), np.delete(values, 3, axis=0))
    assert np.isnan(values[3]).all()  # the caller's array is as it was


def test_a_run_without_any_value_is_an_error(story):
    values = np.zeros((len(story), 2))
    values[story.run == "run-2", 1] = np.nan
    with pytest.raises(StoryError, match=r"Run 'run-2' has no word with pitch\. Leave this control out"):
        fill_with_run_mean(values, story, "pitch")


def test_places_begin_anew_with_every_group():
    assert count_within_groups(np.array(["a", "a", "b", "c", "c", "c"])).tolist() == [0, 1, 0, 0, 1, 2]


def test_one_column_may_be_a_vector(story):
    assert tabulate_words("x", story, np.zeros(len(story))).values.shape == (len(story), 1)
    assert tabulate_sentences("x", story, np.zeros((9, 4)), "sum").combine == "sum"
