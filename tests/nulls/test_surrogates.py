"""Null draws: each keeps a run's values or spectrum, moves all columns alike, and never crosses runs."""

import numpy as np
import pytest

from langcortex.errors import FitError
from langcortex.nulls.surrogates import KINDS, block_rows, draw_null, draw_run_shifts, shifted_rows

RUN = np.repeat(["a", "b"], (60, 45))


@pytest.mark.parametrize("kind", ["shift", "block"])
def test_rows_are_moved_within_their_run_and_none_is_lost(rng, kind):
    rows = draw_null(kind, RUN, rng)(np.arange(105))
    np.testing.assert_array_equal(np.sort(rows[:60]), np.arange(60))
    np.testing.assert_array_equal(np.sort(rows[60:]), np.arange(60, 105))
    assert (rows != np.arange(105)).any()


def test_a_shift_turns_each_run_by_a_tenth_to_nine_tenths(rng):
    for _ in range(50):
        rows = shifted_rows(RUN, rng)
        for part in (slice(0, 60), slice(60, 105)):
            n = part.stop - part.start
            shift = (part.start - rows[part.start]) % n
            np.testing.assert_array_equal(rows[part], np.roll(np.arange(part.start, part.stop), shift))
            assert 0.1 * n - 1 <= shift <= 0.9 * n + 1


def test_blocks_stay_whole(rng):
    """Of 105 rows in blocks of 10 at most the seams between blocks have new neighbours."""
    rows = block_rows(RUN, rng, 10)
    breaks = int((np.diff(rows) != 1).sum())
    assert 3 <= breaks <= 7 + 6
    assert len({tuple(block_rows(RUN, rng, 10)) for _ in range(5)}) == 5


@pytest.mark.parametrize("n", [60, 45])
def test_phases_keep_spectra_and_what_columns_have_in_common(rng, n):
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
    one, other = (draw_null(kind, RUN, np.random.default_rng(5))(x) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_a_shift_in_frequencies_is_a_shift_in_rows(rng):
    x = rng.standard_normal(105)
    for part, turns in draw_run_shifts("shift", RUN, 20, rng):
        n = part.stop - part.start
        for turn in turns:
            moved = np.fft.irfft(np.fft.rfft(x[part]) * turn, n)
            assert min(np.abs(moved - np.roll(x[part], s)).max() for s in range(1, n)) < 1e-9


def test_what_cannot_be_drawn_is_said(rng):
    with pytest.raises(FitError, match="one of shift, block, phase; not 'wavelets'"):
        draw_null("wavelets", RUN, rng)
    with pytest.raises(
        FitError, match="Run 'b' has 45 rows; a null of kind 'block' and blocks of 12 needs at least 48"
    ):
        draw_null("block", RUN, rng, block=12)
    with pytest.raises(FitError, match="needs at least 8"):
        draw_run_shifts("phase", np.full(7, "a"), 3, rng)
