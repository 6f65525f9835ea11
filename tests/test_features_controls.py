"""Controls: each is what its name says, counted by hand."""

import numpy as np
import pytest

from langcortex.errors import SettingsError
from langcortex.features.controls import CONTROLS, control
from langcortex.story import make_story


@pytest.fixture
def two_runs():
    return make_story(
        {"a": ["I", "am.", "Who", "isn’t", "3?", "All."], "b": ["So."]},
        {"a": np.array([1.0, 1.5, 4.0, 5.0, 6.0, 11.0]), "b": np.array([2.0])},
        {"a": np.full(6, 0.5), "b": np.array([0.0])},
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("word_count", [2, 3, 1, 1]),
        ("duration", [1.0, 2.5, 0.5, 0.0]),
        ("word_rate", [2.0, 1.2, 2.0, 1000.0]),
        ("position", [0.0, 0.3, 1.0, 0.0]),
        ("letters", [3, 8, 3, 2]),
    ],
)
def test_a_control_over_sentences_is_what_its_name_says(two_runs, name, expected):
    table = control(name, two_runs)
    assert table.name == name
    merged = table.over_sentences(two_runs)
    assert merged.ids.tolist() == ["a/sentence-000", "a/sentence-001", "a/sentence-002", "b/sentence-000"]
    np.testing.assert_allclose(merged.values[:, 0], expected)


def test_every_control_fits_every_story_and_a_part_of_it_alike(story):
    for name in CONTROLS:
        whole = control(name, story).over_sentences(story)
        part = control(name, story.take(["run-2"])).over_sentences(story.take(["run-2"]))
        np.testing.assert_allclose(part.values, whole.values[whole.run == "run-2"])


def test_counts_add_up_and_the_rest_is_averaged():
    assert {n: control(n, make_story({"r": ["A."]}, {"r": np.zeros(1)}, {"r": np.ones(1)})).combine for n in CONTROLS} == {
        "word_count": "sum", "letters": "sum", "duration": "mean", "word_rate": "mean", "position": "mean",
    }  # fmt: skip


def test_an_unknown_control_is_an_error_that_lists_the_known(story):
    with pytest.raises(
        SettingsError, match=r"No control is called 'pitch'\. There are: word_count, duration"
    ):
        control("pitch", story)
