"""Controls: each is what its name says, counted by hand, and its options are what a study file says."""

import inspect

import numpy as np
import pytest

from langcortex.datasets.measures import Measure
from langcortex.errors import AlignmentError, SettingsError, StoryError
from langcortex.features.controls.registry import CONTROLS, check_controls, control
from langcortex.stimulus.story import make_story

WITH_FILES = {"static", "sound_power", "log_frequency", "random"}  # they need a file, a package or a model
PLAIN = [name for name in CONTROLS if name not in WITH_FILES]


class MeasuredCorpus:
    """A corpus with one measure of its words."""

    def __init__(self, measure):
        self._measure = measure

    def measures(self):
        return [self._measure.name]

    def measure(self, name):
        assert name == self._measure.name
        return self._measure


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
        ("word_rate", [2.0, 1.2, 2.0, 2.0]),
        ("position", [0.0, 0.3, 1.0, 0.0]),
        ("letters", [3, 8, 3, 2]),
        ("position_in_sentence", [0.5, 1.0, 0.0, 0.0]),
        ("position_in_run", [0, 1, 2, 0]),
    ],
)
def test_a_control_over_sentences_is_what_its_name_says(two_runs, name, expected):
    table = control(name, two_runs)
    assert table.name == name
    merged = table.to_sentences(two_runs)
    assert merged.ids.tolist() == ["a/sentence-000", "a/sentence-001", "a/sentence-002", "b/sentence-000"]
    np.testing.assert_allclose(merged.values[:, 0], expected)


@pytest.mark.parametrize("name", [n for n in PLAIN if n != "oasm"])
def test_a_control_of_a_run_does_not_depend_on_other_runs(story, name):
    full = control(name, story).to_sentences(story)
    part = control(name, story.take(["run-2"])).to_sentences(story.take(["run-2"]))
    np.testing.assert_allclose(part.values, full.values[full.run == "run-2"])


def test_every_control_has_the_storys_ids_times_and_runs(story):
    for name in PLAIN:
        table = control(name, story)
        units = story.words if len(table.ids) == len(story) else story.sentences
        for column in ("ids", "onset", "duration", "run"):
            np.testing.assert_array_equal(getattr(table, column), getattr(units, column))


def test_counts_are_summed_and_other_controls_averaged(story):
    combine = {name: control(name, story).combine for name in PLAIN}
    assert {name for name, how in combine.items() if how == "sum"} == {"word_count", "letters"}
    assert set(combine.values()) == {"sum", "mean"}


def test_an_unknown_control_is_an_error_that_lists_the_controls(story):
    with pytest.raises(
        SettingsError, match=r"No control is called 'pitch'\. There are: word_count, duration"
    ):
        control("pitch", story)


def test_options_reach_the_control(story):
    assert control("position_onehot", story, {"position_onehot": {"width": 3}}).values.shape[1] == 3
    assert control("oasm", story, {"oasm": {"sigma": 0}}).values[0, 0] == 1.0  # a whole number is a number


def test_one_control_can_be_used_twice_under_different_names(story):
    options = {"wide": {"control": "oasm", "sigma": 3.0}, "sharp": {"control": "oasm", "sigma": 0.1}}
    wide, sharp = control("wide", story, options), control("sharp", story, options)
    assert (wide.name, sharp.name) == ("wide", "sharp")
    assert wide.values[0, 1] > sharp.values[0, 1] == 0.0


def test_a_path_is_relative_to_the_studys_folder(story, tmp_path):
    (tmp_path / "v.txt").write_text("\n".join(f"{w} 1 2" for w in {*map(str.lower, story.text), "x"}) + "\n")
    table = control("static", story, {"static": {"file": "v.txt"}}, base=tmp_path)
    assert table.values.shape == (len(story), 2)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("oasm", {"sigmas": 1.0}, r"The control 'oasm' has no option 'sigmas' \(features\.options\.oasm\)\. It takes: sigma, unit\."),
        ("letters", {"a": 1}, "It takes: none"),
        ("static", {}, r"The control 'static' needs the option 'file': set features\.options\.static\.file\."),
        ("oasm", {"sigma": "1"}, r"features\.options\.oasm\.sigma is a number, not '1'\."),
        ("oasm", {"sigma": True}, "is a number, not True"),
        ("position_onehot", {"width": 2.5}, "is a whole number, not 2.5"),
        ("static", {"file": 3}, "file is a path, not 3"),
        ("static", {"file": "x", "base": "y"}, "no option 'base'"),
        ("oasm", {"blocks": ["a"]}, "no option 'blocks'"),
        ("mine", {"control": "pitch"}, "No control is called 'pitch'"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_an_error_of_one_sentence_in_check_and_control(story, name, options, sentence):
    with pytest.raises(SettingsError, match=sentence):
        control(name, story, {name: options})
    with pytest.raises(SettingsError, match=sentence):
        check_controls([name], {name: options})


def test_options_of_a_control_that_is_not_used_are_an_error():
    check_controls(["my:own", "oasm"], {"oasm": {"sigma": 2}})
    with pytest.raises(
        SettingsError, match=r"features\.options has 'static', but features\.controls has not"
    ):
        check_controls(["oasm"], {"static": {"file": "x"}})


def test_a_measure_of_a_corpus_is_a_control_by_its_name(two_runs):
    measure = Measure("pitch", two_runs.ids[::-1], ("Hz",), np.arange(7.0)[:, None], "mean", "made up")
    table = control("pitch", two_runs, corpus=MeasuredCorpus(measure))
    assert table.values[:, 0].tolist() == [6, 5, 4, 3, 2, 1, 0]  # matched by id
    assert control("f0", two_runs, {"f0": {"control": "pitch"}}, corpus=MeasuredCorpus(measure)).name == "f0"
    check_controls(["pitch"], {}, MeasuredCorpus(measure))
    with pytest.raises(SettingsError, match="comes from the corpus and takes no options"):
        control("pitch", two_runs, {"pitch": {"x": 1}}, corpus=MeasuredCorpus(measure))
    with pytest.raises(SettingsError, match="random, pitch"):
        control("syntax", two_runs, corpus=MeasuredCorpus(measure))


def test_a_corpus_that_lacks_a_word_is_an_error(two_runs):
    measure = Measure("pitch", two_runs.ids[:-2], ("Hz",), np.zeros((5, 1)), "mean", "made up")
    with pytest.raises(
        AlignmentError, match=r"The corpus has no 'pitch' for 2 of 7 units, first 'a/word-0005'"
    ):
        control("pitch", two_runs, corpus=MeasuredCorpus(measure))


def test_every_control_has_a_docstring_that_names_its_options():
    for name, make in CONTROLS.items():
        assert make.__doc__, name
        for option in list(inspect.signature(make).parameters)[1:]:
            assert option in make.__doc__, (name, option)


@pytest.mark.parametrize("name", ["duration", "word_rate"])
def test_controls_of_time_are_refused_where_no_row_lasts(name):
    story = make_story({"r": ["One.", "Two."]}, {"r": np.arange(2.0)}, {"r": np.zeros(2)})
    with pytest.raises(
        StoryError, match=f"^The control '{name}' needs durations, but every row .* Leave it out"
    ):
        control(name, story)
