"""Measures of a corpus: matched by id, undefined words filled, sentences possible."""

import numpy as np
import pytest

from langcortex.datasets.measures import Measure
from langcortex.errors import StoryError
from langcortex.features.controls.corpus_measures import tabulate_measure


def test_a_measure_of_words_is_matched_by_id_and_keeps_its_combination(story, rng):
    order = rng.permutation(len(story))
    measure = Measure(
        "m", story.ids[order], ("a", "b"), np.stack([order, -order], axis=1) * 1.0, "sum", "made up"
    )
    table = tabulate_measure(measure, story)
    np.testing.assert_array_equal(table.values[:, 0], np.arange(len(story)))
    assert (table.name, table.combine) == ("m", "sum")
    part = story.take(["run-2"])
    np.testing.assert_array_equal(tabulate_measure(measure, part).values, table.values[story.run == "run-2"])


def test_an_undefined_word_gets_the_mean_of_its_run(story):
    values = np.ones((len(story), 1))
    values[0] = np.nan
    assert tabulate_measure(Measure("f0", story.ids, ("Hz",), values, "mean", "s"), story).values[0, 0] == 1.0
    values[story.run == "run-3"] = np.nan
    with pytest.raises(StoryError, match="Run 'run-3' has no word with f0"):
        tabulate_measure(Measure("f0", story.ids, ("Hz",), values, "mean", "s"), story)


def test_a_measure_may_be_of_sentences(story):
    ids = story.sentences.ids
    table = tabulate_measure(Measure("s", ids, ("n",), np.arange(9.0)[:, None], "mean", "s"), story)
    assert table.ids.tolist() == ids.tolist()
    assert table.values[:, 0].tolist() == list(range(9))


def test_a_measure_of_another_shape_is_a_mistake_in_the_corpus(story):
    with pytest.raises(ValueError, match="measure 'm'"):
        Measure("m", story.ids, ("a", "b"), np.zeros((len(story), 1)), "mean", "s")
    with pytest.raises(ValueError, match="combined by 'max'"):
        Measure("m", story.ids, ("a",), np.zeros((len(story), 1)), "max", "s")
