"""OASM: rows of near units are similar, rows of far units are not, and runs are independent."""

import numpy as np
import pytest

from langcortex.errors import SettingsError
from langcortex.features.controls.oasm import SIGMAS, oasm, smoothed_identity
from langcortex.stimulus.story import make_story


def test_a_row_is_a_gaussian_around_its_own_column():
    x = smoothed_identity(np.full(41, "a"), 2.0)
    lag = np.arange(-8, 9)  # cut off at 4 σ
    expected = np.exp(-(lag**2) / 8.0)
    np.testing.assert_allclose(x[20, 12:29], expected / expected.sum(), rtol=1e-12)
    assert (x[20, :12] == 0).all()
    assert (x[20, 29:] == 0).all()
    np.testing.assert_allclose(x.sum(axis=1), 1.0)  # weights beyond an edge are reflected


def test_at_an_edge_the_kernel_is_reflected():
    x = smoothed_identity(np.full(9, "a"), 1.0)
    g = np.exp(-(np.arange(-4, 5) ** 2) / 2.0)
    g /= g.sum()
    np.testing.assert_allclose(x[0, :4], [g[4] + g[5], g[5] + g[6], g[6] + g[7], g[7] + g[8]])


def test_blocks_are_independent_of_each_other():
    block = np.repeat(["a", "b"], [5, 3])
    x = smoothed_identity(block, 4.8)
    assert (x[:5, 5:] == 0).all()
    assert (x[5:, :5] == 0).all()
    np.testing.assert_allclose(x[5:, 5:], smoothed_identity(np.full(3, "b"), 4.8))


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_a_narrow_kernel_leaves_the_identity(sigma):
    np.testing.assert_array_equal(smoothed_identity(np.full(6, "a"), sigma), np.eye(6))


def test_the_widths_are_those_of_the_published_code():
    assert len(SIGMAS) == 48
    np.testing.assert_allclose(SIGMAS, np.linspace(0.1, 4.8, 48))


def test_units_are_sentences_or_words_and_blocks_are_runs_or_shorter(story):
    table = oasm(story, sigma=1.0)
    np.testing.assert_allclose(table.values, smoothed_identity(story.sentences.run, 1.0))
    assert table.ids.tolist() == story.sentences.ids.tolist()
    words = oasm(story, unit="words")
    assert words.values.shape == (len(story), len(story))
    blocked = oasm(story, blocks=["x", "x", "y"] * 3)  # the same names in another run are other blocks
    np.testing.assert_allclose(
        blocked.values, smoothed_identity(np.repeat(np.arange(6), [2, 1] * 3).astype(str), 1.0)
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"unit": "scans"}, "a unit .sentences or words. and a sigma from 0, not 'scans' and 1"),
        ({"sigma": -0.1}, "not 'sentences' and -0.1"),
        ({"sigma": float("nan")}, "not 'sentences' and nan"),
        ({"blocks": ["a"]}, "blocks for 1 units, but the story has 9 sentences"),
        ({"blocks": ["a", "b", "a"] * 3}, "The units of a block of oasm are not contiguous"),
    ],
)
def test_impossible_options_are_errors(story, options, sentence):
    with pytest.raises(SettingsError, match=sentence):
        oasm(story, **options)


def test_a_story_with_too_many_units_is_an_error_before_memory_runs_out():
    n = 6001
    long = make_story({"r": ["a"] * n}, {"r": np.arange(n) * 0.1}, {"r": np.full(n, 0.1)})
    with pytest.raises(
        SettingsError, match=r"has 6001 words; at most 6000 are possible\. Use unit = \"sentences\""
    ):
        oasm(long, unit="words")


def test_it_predicts_autocorrelated_noise_within_runs_and_nothing_in_another_run(rng, autocorrelated):
    runs = np.repeat(["a", "b", "c", "d"], 60)
    noise = np.concatenate([autocorrelated(rng, 60, 40, 0.9) for _ in range(4)])
    white = rng.standard_normal(noise.shape)
    x = smoothed_identity(runs, 2.0)
    shuffled = rng.permutation(np.arange(len(runs)) % 4)
    by_run = np.unique(runs, return_inverse=True)[1]
    assert (
        held_out_r2(x, noise, shuffled) > 0.7
    )  # rows of a run in training and test: neighbours predict each other
    assert held_out_r2(x, white, shuffled) < 0  # without autocorrelation, neighbours mislead
    assert abs(held_out_r2(x, noise, by_run)) < 1e-9  # whole runs left out: the training mean, exactly


def held_out_r2(x, y, fold, penalty=0.05):
    """Ridge with an unpenalised mean; 1 − Σ SSE / Σ SST against the training mean."""
    errors = total = 0.0
    for f in np.unique(fold):
        train, test = fold != f, fold == f
        mean = y[train].mean(axis=0)
        k = x[train] @ x[train].T
        dual = np.linalg.solve(k + penalty * np.eye(len(k)), y[train] - mean)
        predicted = x[test] @ (x[train].T @ dual) + mean
        errors += ((y[test] - predicted) ** 2).sum()
        total += ((y[test] - mean) ** 2).sum()
    return 1 - errors / total
