"""Surrogates: each keeps the values or the spectrum of a run, changes all columns alike, and never crosses runs."""

import numpy as np
import pytest

from langcortex.errors import FitError
from langcortex.nulls.surrogates import (
    KINDS,
    cut_blocks,
    draw_null,
    draw_shifts,
    draw_spectral_factors,
    shift_rows,
    shuffle_blocks,
)

RUN = np.repeat(["a", "b"], (60, 45))


@pytest.mark.parametrize("kind", ["shift", "block"])
def test_rows_are_moved_within_their_run_and_none_is_lost(rng, kind):
    rows = draw_null(kind, RUN, rng)(np.arange(105))
    np.testing.assert_array_equal(np.sort(rows[:60]), np.arange(60))
    np.testing.assert_array_equal(np.sort(rows[60:]), np.arange(60, 105))
    assert (rows != np.arange(105)).any()


def test_each_run_is_shifted_by_a_tenth_to_nine_tenths(rng):
    for _ in range(50):
        rows = shift_rows(RUN, rng)
        for part in (slice(0, 60), slice(60, 105)):
            n = part.stop - part.start
            shift = (part.start - rows[part.start]) % n
            np.testing.assert_array_equal(rows[part], np.roll(np.arange(part.start, part.stop), shift))
            assert 0.1 * n - 1 <= shift <= 0.9 * n + 1


def test_shifts_are_the_same_whether_drawn_at_once_or_one_by_one():
    """A run of any length, down to one row, and shares that end in a half."""
    for n in (1, 2, 3, 10, 45, 301):
        at_once, one_by_one = np.random.default_rng(n), np.random.default_rng(n)
        expected = [min(max(round(one_by_one.uniform(0.1, 1 - 0.1) * n), 1), n - 1) for _ in range(500)]
        np.testing.assert_array_equal(draw_shifts(n, 500, at_once), expected)


def test_blocks_stay_whole(rng):
    """Of 105 rows in blocks of 10 at most the seams between blocks have new neighbours."""
    rows = shuffle_blocks(RUN, rng, 10)
    breaks = int((np.diff(rows) != 1).sum())
    assert 3 <= breaks <= 7 + 6
    assert len({tuple(shuffle_blocks(RUN, rng, 10)) for _ in range(5)}) == 5


@pytest.mark.parametrize("n", [40, 41, 47, 155, 310, 311])
def test_blocks_are_long_enough_and_no_length_has_only_one(n):
    lengths = np.diff(cut_blocks(n, 10))
    assert lengths.sum() == n
    if n in (41, 47):  # a few rows stay
        lengths = lengths[:-1]
    assert lengths.min() >= 10
    assert np.ptp(lengths) <= 1
    assert all((lengths == length).sum() > 1 for length in set(lengths.tolist()))


@pytest.mark.parametrize("n", [60, 45])
def test_phases_keep_spectra_and_the_covariance_of_columns(rng, n):
    run = np.full(n, "a")
    x = rng.standard_normal((n, 4)) @ rng.standard_normal((4, 4)) + 3
    y = draw_null("phase", run, rng)(x)
    np.testing.assert_allclose(np.abs(np.fft.rfft(y, axis=0)), np.abs(np.fft.rfft(x, axis=0)), atol=1e-9)
    np.testing.assert_allclose(np.cov(y.T), np.cov(x.T))
    np.testing.assert_allclose(y.mean(axis=0), x.mean(axis=0))
    assert abs(np.corrcoef(x[:, 0], y[:, 0])[0, 1]) < 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_one_draw_does_the_same_to_every_array(rng, kind):
    x = rng.standard_normal((105, 6))
    draw = draw_null(kind, RUN, rng)
    np.testing.assert_allclose(draw(x)[:, 2:4], draw(x[:, 2:4]))
    np.testing.assert_allclose(draw(x[:, None])[:, 0], draw(x))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_draw(kind):
    x = np.random.default_rng(1).standard_normal((105, 2))
    first, second = (draw_null(kind, RUN, np.random.default_rng(5))(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_shift_in_frequencies_is_a_shift_in_rows(rng):
    x = rng.standard_normal(105)
    for part, factors in draw_spectral_factors("shift", RUN, 20, rng):
        n = part.stop - part.start
        for factor in factors:
            shifted = np.fft.irfft(np.fft.rfft(x[part]) * factor, n)
            assert min(np.abs(shifted - np.roll(x[part], s)).max() for s in range(1, n)) < 1e-9


def test_unknown_kinds_and_short_runs_raise(rng):
    with pytest.raises(FitError, match="one of shift, block, phase; not 'wavelets'"):
        draw_null("wavelets", RUN, rng)
    with pytest.raises(
        FitError, match="Run 'b' has 45 rows; a null of kind 'block' and blocks of 12 needs at least 48"
    ):
        draw_null("block", RUN, rng, block=12)
    with pytest.raises(FitError, match="needs at least 8"):
        draw_spectral_factors("phase", np.full(7, "a"), 3, rng)
