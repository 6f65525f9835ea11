"""Random features: the statistics of the table they copy, and nothing else of it."""

import numpy as np
import pytest

from langcortex.errors import SettingsError
from langcortex.features.controls.phase_random import random_like
from langcortex.features.controls.registry import control
from langcortex.features.table import Features


def table(values, run):
    n = len(values)
    ids = np.array([f"{r}/word-{i:04d}" for i, r in enumerate(run)])
    return Features("m/layer-1", ids, np.arange(n, dtype=float), np.ones(n), run, values)


@pytest.fixture(params=[(64, 45), (63, 8)])
def slow(request, rng, autocorrelated):
    """Columns that are slow and correlated, in runs of even and odd length."""
    sizes = request.param
    mix = rng.standard_normal((6, 6))
    values = np.concatenate([autocorrelated(rng, n, 6, 0.8) @ mix + 3.0 for n in sizes])
    return table(values, np.repeat(["a", "b"], sizes))


def circular(x, y):
    """Covariance of two columns at every circular lag."""
    x, y = x - x.mean(), y - y.mean()
    return np.fft.irfft(np.fft.rfft(x).conj() * np.fft.rfft(y), len(x)) / len(x)


def test_every_column_keeps_mean_variance_and_autocorrelation_in_every_run(slow):
    copy = random_like(slow, seed=1)
    for run in ("a", "b"):
        rows = slow.run == run
        for k in range(6):
            a, b = slow.values[rows, k], copy.values[rows, k]
            np.testing.assert_allclose(b.mean(), a.mean())
            np.testing.assert_allclose(circular(b, b), circular(a, a), atol=1e-9)


def test_columns_keep_their_correlation_with_each_other_at_every_lag(slow):
    copy = random_like(slow, seed=1)
    rows = slow.run == "a"
    for j, k in [(0, 1), (2, 5)]:
        np.testing.assert_allclose(
            circular(copy.values[rows, j], copy.values[rows, k]),
            circular(slow.values[rows, j], slow.values[rows, k]),
            atol=1e-9,
        )


def test_nothing_of_what_was_when_is_left(rng, autocorrelated):
    original = table(autocorrelated(rng, 4000, 1, 0.8), np.full(4000, "a"))
    r = [
        abs(np.corrcoef(random_like(original, s).values[:, 0], original.values[:, 0])[0, 1])
        for s in range(20)
    ]
    assert np.median(r) < 0.1


def test_the_seed_and_the_runs_name_decide(slow):
    np.testing.assert_array_equal(random_like(slow, 1).values, random_like(slow, 1).values)
    assert not np.allclose(random_like(slow, 1).values, random_like(slow, 2).values)
    rows = slow.run == "b"
    alone = Features(
        slow.name, slow.ids[rows], slow.onset[rows], slow.duration[rows], slow.run[rows], slow.values[rows]
    )
    np.testing.assert_allclose(random_like(alone, 1).values, random_like(slow, 1).values[rows])
    assert random_like(slow, 1).ids is slow.ids


def test_runs_of_one_length_have_phases_of_their_own(rng):
    values = rng.standard_normal((32, 2))
    copy = random_like(table(np.concatenate([values, values]), np.repeat(["a", "b"], 32))).values
    assert not np.allclose(copy[:32], copy[32:])


def test_layers_of_one_model_are_turned_alike(slow):
    twice = Features(slow.name, slow.ids, slow.onset, slow.duration, slow.run, 2 * slow.values)
    np.testing.assert_allclose(random_like(twice, 3).values, 2 * random_like(slow, 3).values)


def test_single_precision_stays_single(slow):
    single = Features(
        slow.name, slow.ids, slow.onset, slow.duration, slow.run, slow.values.astype(np.float32)
    )
    assert random_like(single).values.dtype == np.float32


def test_a_run_too_short_to_hide_the_original_is_refused(rng):
    short = table(rng.standard_normal((7, 2)), np.full(7, "a"))
    with pytest.raises(
        SettingsError, match=r"Run 'a' has 7 rows of 'm/layer-1'; random features like it need 8"
    ):
        random_like(short)
    with pytest.raises(SettingsError, match="a whole number from 0, not -1"):
        random_like(short, seed=-1)


def test_a_study_names_the_feature_space_to_be_like(story, slow):
    options = {"random": {"like": "m/layer-1", "seed": 4}}
    table = control("random", story, options, tables={"m/layer-1": slow})
    assert table.name == "random"
    np.testing.assert_array_equal(table.values, random_like(slow, 4).values)
    with pytest.raises(
        SettingsError, match=r"like 'm/layer-1', but there is no such feature space\. There are: other"
    ):
        control("random", story, options, tables={"other": slow})
    with pytest.raises(SettingsError, match="There are: none"):
        control("random", story, options)
    with pytest.raises(SettingsError, match="needs the option 'like'"):
        control("random", story)
