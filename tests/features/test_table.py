"""Feature tables: rows meet by name, and a gap is an error."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langcortex.errors import AlignmentError
from langcortex.features.table import Features


def _words(story, values, combine="mean", name="llama/layer-16"):
    return Features(name, story.ids, story.onset, story.duration, story.run, values, combine)


def test_a_gap_is_an_error_that_names_the_first_piece_and_says_what_to_do(story):
    table = _words(story, np.zeros((len(story), 2)))
    with pytest.raises(AlignmentError) as error:
        table.find_rows(np.array([*story.ids[:2], "section1/sentence-040", "section1/sentence-041"]))
    assert str(error.value) == (
        "'llama/layer-16' has no row for 2 of 4 units, first 'section1/sentence-040'. Extract features for every unit, "
        "or leave these out of the recording too: rows are matched by id, never by position."
    )


@given(st.permutations(range(9)), st.lists(st.integers(0, 8), max_size=9))
def test_rows_are_found_whatever_their_order(order, chosen):
    ids = np.array([f"w{i}" for i in range(9)])
    table = Features(
        "f", ids[list(order)], np.zeros(9), np.zeros(9), np.full(9, "r"), np.array(order, float)[:, None]
    )
    assert table.values[table.find_rows(ids[chosen]), 0].tolist() == chosen


@pytest.mark.parametrize(
    ("combine", "merge"),
    [("mean", lambda v: v.mean(axis=0)), ("sum", lambda v: v.sum(axis=0)), ("last", lambda v: v[-1])],
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_words_merge_into_sentences(story, rng, combine, merge, shuffled):
    values = rng.standard_normal((len(story), 3)).astype(np.float32)
    table = _words(story, values, combine)
    if shuffled:
        order = rng.permutation(len(story))
        table = Features(
            "f", *(getattr(table, k)[order] for k in ("ids", "onset", "duration", "run", "values")), combine
        )
    merged = table.to_sentences(story)
    assert merged.values.dtype == np.float32
    np.testing.assert_array_equal(merged.ids, story.sentences.ids)
    for name, row in zip(merged.ids, merged.values, strict=True):
        np.testing.assert_allclose(row, merge(values[story.sentence == name]), atol=1e-6)


def test_sentence_rows_pass_unchanged_in_the_storys_order(story, rng):
    s = story.sentences
    order = rng.permutation(len(s))
    table = Features(
        "f", s.ids[order], s.onset[order], s.duration[order], s.run[order], order[:, None].astype(float)
    )
    assert table.to_sentences(story).values[:, 0].tolist() == list(range(len(s)))
    short = Features("f", s.ids[1:], s.onset[1:], s.duration[1:], s.run[1:], np.zeros((len(s) - 1, 1)))
    with pytest.raises(AlignmentError, match="has no row for 1 of 9 units, first 'run-1/sentence-000'"):
        short.to_sentences(story)
    w = story.words
    short = Features("f", w.ids[1:], w.onset[1:], w.duration[1:], w.run[1:], np.zeros((len(w) - 1, 1)))
    with pytest.raises(AlignmentError, match=f"has no row for 1 of {len(w)} units, first 'run-1/word-0000'"):
        short.to_sentences(story)


def test_values_that_are_not_numbers_are_named(story):
    values = np.zeros((len(story), 2))
    values[3, 1], values[5, 0] = np.nan, np.inf
    with pytest.raises(
        AlignmentError, match=f"NaN or infinite values in 2 of {len(story)} rows, first 'run-1/word-0003'"
    ):
        _words(story, values)


def test_a_table_is_checked_at_birth(story):
    with pytest.raises(ValueError, match="not 'median'"):
        _words(story, np.zeros((len(story), 1)), "median")
    with pytest.raises(ValueError, match="values"):
        _words(story, np.zeros((len(story) - 1, 1)))
    with pytest.raises(ValueError, match="values"):
        _words(story, np.zeros(len(story)))


def test_durations_weigh_words(story, rng):
    values = rng.standard_normal((len(story), 2))
    seconds = rng.uniform(0.1, 1.0, len(story))
    timed = dataclasses.replace(story, duration=seconds)
    merged = _words(timed, values, "duration").to_sentences(timed)
    for name, row in zip(merged.ids, merged.values, strict=True):
        here = story.sentence == name
        np.testing.assert_allclose(row, np.average(values[here], axis=0, weights=seconds[here]))
    silent = dataclasses.replace(story, duration=np.where(story.run == "run-2", 0.0, story.duration))
    with pytest.raises(AlignmentError, match=r"words of 'run-2/sentence-000' last 0 s.*Use pool = 'mean'"):
        _words(silent, values, "duration").to_sentences(silent)


def test_words_of_onsets_only_weigh_the_same(story, rng):
    values = rng.standard_normal((len(story), 2))
    instants = dataclasses.replace(story, duration=np.zeros(len(story)))
    by_duration = _words(instants, values, "duration").to_sentences(instants)
    np.testing.assert_allclose(
        by_duration.values, _words(instants, values, "mean").to_sentences(instants).values
    )
    one = np.where(np.arange(len(story)) == 0, 0.0, story.duration)
    mixed = dataclasses.replace(story, duration=one)
    first = _words(mixed, values, "duration").to_sentences(mixed).values[0]
    here = story.sentence == story.sentence[0]
    np.testing.assert_allclose(first, np.average(values[here], axis=0, weights=story.duration[here]))
