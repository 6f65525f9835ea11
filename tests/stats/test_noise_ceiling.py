"""Ceilings between subjects: planted reliability is inside the interval, noise is refused, no subject is in its own mean."""

from dataclasses import replace

import numpy as np
import pytest

from langcortex.brain.recording import Recording
from langcortex.brain.space import Space
from langcortex.errors import FitError
from langcortex.stats.noise_ceiling import Ceiling, inter_subject_ceiling, normalise
from langcortex.stats.resampling import Resampling
from reference.noise_ceiling import align_recordings, leave_one_out_ceiling, split_group_ceiling


def _group(rng, n, share, n_scans=200, n_targets=100):
    """Subjects who share exactly that much of their variance, in these very scans."""
    signal = rng.standard_normal((n_scans, n_targets))
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    return np.sqrt(share) * signal + np.sqrt(1 - share) * rng.standard_normal((n, n_scans, n_targets))


def _truths(n, share):
    return {
        "others": share / np.sqrt(share + (1 - share) / (n - 1)),
        "perfect": np.sqrt(share),
        "average": np.sqrt(n * share / (1 + (n - 1) * share)),
    }


def _ceilings(x, rng):
    return {
        "others": leave_one_out_ceiling(x, rng),
        "perfect": leave_one_out_ceiling(x, rng, corrected=True),
        "average": split_group_ceiling(x, rng, 30),
    }


@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_planted_reliability_is_inside_the_interval_nine_times_in_ten(n, share):
    """A hundred targets, a hundred simulations."""
    rng = np.random.default_rng([n, int(10 * share)])
    truths = _truths(n, share)
    for name, c in _ceilings(_group(rng, n, share), rng).items():
        inside = (c.low <= truths[name]) & (truths[name] <= c.high)
        assert inside.mean() >= 0.9, name
        assert np.mean(c.value) == pytest.approx(truths[name], abs=0.04), name
        assert (c.unit, c.resampling.n) == ("r", 1000)


def test_each_subject_is_left_out_of_the_mean_it_is_compared_with(rng):
    x = _group(rng, 6, 0.2, n_targets=3)
    ceiling = leave_one_out_ceiling(x, rng)
    for i in range(6):
        z = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
        mean_of_others = np.delete(z, i, axis=0).mean(axis=0)
        for j in range(3):
            assert ceiling.by_subject[i, j] == pytest.approx(
                np.corrcoef(z[i, :, j], mean_of_others[:, j])[0, 1]
            )


def test_noise_is_refused_though_it_correlates_with_a_mean_that_contains_it(rng):
    n = 10
    x = _group(rng, n, 0.0)
    with_itself = [np.corrcoef(x[0, :, j], x[:, :, j].mean(axis=0))[0, 1] for j in range(100)]
    assert np.mean(with_itself) == pytest.approx(1 / np.sqrt(n), abs=0.03)
    for c in _ceilings(x, rng).values():
        assert abs(np.mean(c.value)) < 0.06
        share = normalise(np.full(100, 0.1), c, "r")
        assert np.isnan(share.value).mean() >= 0.95
        assert set(share.reason[np.isnan(share.value)]) == {"the interval of the ceiling contains 0"}


def test_halves_give_the_reliability_of_spearman_and_brown(rng):
    x = _group(rng, 8, 0.3, n_scans=4000, n_targets=4)
    z = x / x.std(axis=1, keepdims=True)
    r = np.mean([
        [np.corrcoef(z[o[:4], :, j].mean(axis=0), z[o[4:], :, j].mean(axis=0))[0, 1] for j in range(4)]
        for o in (rng.permutation(8) for _ in range(50))
    ], axis=0)  # fmt: skip
    np.testing.assert_allclose(split_group_ceiling(x, rng, 50).value, np.sqrt(2 * r / (1 + r)), atol=0.01)


def test_the_ceiling_of_an_odd_group_is_that_of_all_its_subjects(rng):
    x = _group(rng, 5, 0.2, n_scans=5000, n_targets=20)
    assert np.mean(split_group_ceiling(x, rng, 30).value) == pytest.approx(
        _truths(5, 0.2)["average"], abs=0.02
    )


def test_a_target_that_is_undefined_in_one_subject_has_no_ceiling(rng):
    x = _group(rng, 5, 0.3, n_targets=3)
    x[1, :, 0], x[2, :, 2] = np.nan, 4.0
    for c in _ceilings(x, rng).values():
        assert np.isnan(c.value).tolist() == [True, False, True]
        assert np.isnan(c.low).tolist() == [True, False, True]
        assert normalise(np.ones(3), c, "r").reason[0] == "the ceiling is undefined"


def test_too_few_subjects_raise(rng):
    with pytest.raises(FitError, match="2 subjects with 50 scans: this ceiling needs at least 3 subjects"):
        leave_one_out_ceiling(rng.standard_normal((2, 50, 1)), rng)
    with pytest.raises(FitError, match="needs at least 4 subjects"):
        split_group_ceiling(rng.standard_normal((3, 50, 1)), rng)


def _ceiling(low, value, unit="r"):
    value = np.asarray(value, dtype=float)
    return Ceiling(
        value, np.asarray(low, dtype=float), value + 0.1, unit, "x", Resampling("subjects", "", 1, "0")
    )


def test_scores_become_shares_only_of_ceilings_in_their_unit_and_above_zero():
    c = _ceiling([0.1, -0.1, 0.1, np.nan, 0.0], [0.2, 0.2, 0.2, np.nan, 0.1])
    share = normalise(np.array([0.1, 0.1, np.nan, 0.1, 0.1]), c, "r")
    np.testing.assert_allclose(share.value, [0.5, np.nan, np.nan, np.nan, np.nan])
    assert share.reason.tolist() == [
        "", "the interval of the ceiling contains 0", "the score is undefined", "the ceiling is undefined",
        "the interval of the ceiling contains 0",
    ]  # fmt: skip
    assert share.sentence.startswith("4 of 5 targets were not normalised")
    assert normalise(np.array([-0.1]), _ceiling([0.1], [0.2]), "r").value[0] == pytest.approx(-0.5)
    with pytest.raises(
        FitError, match=r"The scores are r2 and the ceiling is of r; .* Use ceiling.squared\(\)"
    ):
        normalise(np.ones(5), c, "r2")
    with pytest.raises(FitError, match=r"There are \(4,\) scores and \(5,\) ceilings"):
        normalise(np.ones(4), c, "r")


def test_a_squared_ceiling_is_of_r2_and_noise_stays_refused():
    c = _ceiling([0.1, -0.3], [0.5, -0.1]).squared()
    np.testing.assert_allclose(c.value, [0.25, np.nan])
    np.testing.assert_allclose(c.low, [0.01, 0.0])
    assert c.unit == "r2"
    np.testing.assert_allclose(normalise(np.array([0.1, 0.1]), c, "r2").value, [0.4, np.nan])
    assert c.squared() is c


def _recording(values, subject, run="run-1", begin=0.0, tr=2.0):
    names = np.array([str(i) for i in range(values.shape[1])])
    onset = begin + tr * np.arange(len(values))
    return Recording(values.astype(np.float32), onset, tr, run, subject, Space("columns", names))


def test_scans_are_matched_by_run_and_time(rng):
    x = rng.standard_normal((2, 40, 3))
    people = {
        "a": [_recording(x[0, :20], "a"), _recording(x[0, 20:], "a", "run-2")],
        # began two scans later, and came in another order
        "b": [_recording(x[1, 20:], "b", "run-2"), _recording(x[1, 2:20], "b", begin=4.0)],
    }
    values, run = align_recordings(people)
    assert values.shape == (2, 38, 3)
    assert run.tolist() == ["run-1"] * 18 + ["run-2"] * 20
    part = x[1, 2:20]
    np.testing.assert_allclose(values[1, :18], (part - part.mean(axis=0)) / part.std(axis=0), atol=1e-5)
    np.testing.assert_allclose(values[:, 18:].mean(axis=1), 0, atol=1e-9)


def test_recordings_without_common_scans_raise(rng):
    x = rng.standard_normal((20, 3))
    a, b = _recording(x, "a"), _recording(x, "b")
    with pytest.raises(FitError, match="needs at least 2; there are 1"):
        align_recordings({"a": [a]})
    with pytest.raises(FitError, match="Subject 'b' has no run 'run-1'"):
        align_recordings({"a": [a], "b": [replace(b, run="run-2")]})
    with pytest.raises(FitError, match="'b' has other targets than 'a'"):
        align_recordings({"a": [a], "b": [_recording(x[:, :2], "b")]})
    with pytest.raises(FitError, match="0 scans of all 2 subjects began at the same time"):
        align_recordings({"a": [a], "b": [_recording(x, "b", begin=0.5)]})


def test_subjects_of_the_alice_data_have_the_correlations_in_the_notes_on_the_data(shared_data, rng):
    """Brennan et al. 2016, 27 subjects, 6 regions: leave-one-out r .29 .23 .41 .27 .26 .21, far from 0."""
    from langcortex.datasets import alice
    from langcortex.datasets.corpus import Reading

    if not (shared_data / "alice").is_dir():
        pytest.skip("the Alice data are absent")
    corpus = alice.corpus(shared_data / "alice", Reading())
    people = {s: [corpus.recording(s, run) for run in corpus.runs(s)] for s in corpus.subjects()}
    values, _ = align_recordings(people)
    ceiling = leave_one_out_ceiling(values, rng)
    expected = {"LATL": 0.29, "RATL": 0.23, "LPTL": 0.41, "LIPL": 0.27, "LPreM": 0.26, "LIFG": 0.21}
    names = next(iter(people.values()))[0].space.names.tolist()
    np.testing.assert_allclose(ceiling.value, [expected[name] for name in names], atol=0.04)
    assert (ceiling.low > 0).all()
    assert (
        split_group_ceiling(values, rng).value > leave_one_out_ceiling(values, rng, corrected=True).value
    ).all()


@pytest.mark.parametrize("n", [3, 5, 20])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_regions_ceiling_is_inside_its_interval_nine_times_in_ten(n, share):
    """Forty simulations of 40 targets in four runs; correlations are computed in each run, as scores are."""
    n_runs, n_scans, n_targets, n_simulations = 4, 50, 40, 40
    segment = np.repeat(np.arange(n_runs), n_scans)
    # centring removes a part of the noise's variance, none of the signal's
    shared = share / (share + (1 - share) * (n_scans - 1) / n_scans)
    truth = {"perfect": np.sqrt(shared), "others": shared / np.sqrt(shared + (1 - shared) / (n - 1))}
    hits = dict.fromkeys(truth, 0)
    for seed in range(n_simulations):
        rng = np.random.default_rng([n, int(100 * share), seed])
        signal = rng.standard_normal((n_runs, n_scans, n_targets))
        signal = (signal - signal.mean(axis=1, keepdims=True)) / signal.std(axis=1, keepdims=True)
        noise = rng.standard_normal((n, n_runs * n_scans, n_targets))
        x = np.sqrt(share) * signal.reshape(noise.shape[1:]) + np.sqrt(1 - share) * noise
        ceilings = inter_subject_ceiling(
            lambda part, x=x: x[:, :, part], n, n_targets, segment, rng, n_resamples=200
        )
        for kind, c in ceilings.items():
            _, low, high = c.by_region["brain"]
            hits[kind] += low <= truth[kind] <= high
    # an interval that holds the truth in 90 % of trials does so in 31 of 40 or more, 99 times in 100
    assert min(hits.values()) >= 31, hits


def test_targets_in_chunks_give_the_mean_correlation_over_segments(rng):
    x = _group(rng, 5, 0.2, n_scans=60, n_targets=300)
    segment = np.repeat(["a", "b"], [20, 40])
    ceilings = inter_subject_ceiling(lambda part: x[:, :, part], 5, 300, segment, rng, ("others",), 50)
    ceiling = ceilings["others"]
    for i, v in ((0, 0), (3, 299)):
        correlations = [
            np.corrcoef(x[i, rows, v], _standardised(np.delete(x, i, axis=0)[:, rows, v]).mean(axis=0))[0, 1]
            for rows in (segment == "a", segment == "b")
        ]
        assert ceiling.by_subject[i, v] == pytest.approx(np.mean(correlations))
    assert ceiling.by_region["brain"][0] == pytest.approx(ceiling.value.mean())


def _standardised(x):
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
