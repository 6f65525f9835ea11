"""Ablation of the recipe: with all flaws it is the published one, and with all of them fixed noise gets nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from langcortex.encoding.replication.ablation import (
    FLAWS,
    GAP,
    Ablation,
    RecipeRun,
    _RunWindows,
    ablate_run,
    ablation_steps,
)
from langcortex.encoding.replication.recipe import replicate_run, whole_run_z
from langcortex.errors import FitError

EVERY = tuple(FLAWS)
N, N_SCANS, N_VOXELS = 150, 290, 1500


def speech(rng: np.random.Generator, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Draw onset and duration of units of speech, two to a TR of 2 s at most."""
    duration = rng.uniform(0.8, 5.0, n)
    return 3.0 + np.concatenate([[0], np.cumsum(duration + rng.uniform(0.2, 0.8, n))[:-1]]), duration


def slow(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    x = ndimage.gaussian_filter1d(rng.standard_normal(shape), sigma, axis=0)
    return np.asarray(x / x.std())


def scene(seed: int, n_layers: int = 1, dropped: tuple[int, ...] = ()) -> tuple[RecipeRun, np.ndarray]:
    """Draw slow features and a slow brain that does not listen."""
    rng = np.random.default_rng(seed)
    onset, duration = speech(rng)
    kept = np.ones(N, dtype=bool)
    kept[list(dropped)] = False
    run = RecipeRun(slow(rng, (N, n_layers, 30), 2.0), onset, duration, 2.0, kept)
    return run, slow(rng, (int(onset[-1] / 2) + 12, N_VOXELS), 1.5)


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    """Return r of every step for 4 draws of noise."""
    return np.stack([ablate_run(*scene(seed), ablation_steps(EVERY))[:, 0] for seed in range(4)])


# with all flaws


@pytest.mark.parametrize("row_shift", [True, False])
def test_with_every_flaw_left_it_is_the_published_recipe(row_shift: bool) -> None:
    run, values = scene(3, n_layers=3, dropped=(10, 70))
    flaws = set(EVERY) if row_shift else set(EVERY) - {"row_shift"}
    scores = ablate_run(run, values, [flaws], layers=[0, 1, 2])
    r = replicate_run(run.features, values, run.onset, run.duration, 2.0, run.unit_mask, row_shift, 0).r
    np.testing.assert_array_equal(scores[0], r)


def test_a_brain_that_listens_is_found_when_every_cause_is_fixed() -> None:
    """Planted both ways: half the variance follows the features 6 s late; fixing flaws does not lose it."""
    run, values = scene(5)
    drive = np.zeros((len(values), 30))
    for onset, duration, x in zip(run.onset, run.duration, run.features[:, 0], strict=True):
        drive[int((onset + 6) / 2) : int((onset + duration + 6) / 2) + 1] += x
    weights = np.random.default_rng(0).standard_normal((30, 400))
    signal = drive @ weights
    values[:, :400] = values[:, :400] + signal / signal.std()
    (fixed,), (published,) = ablate_run(run, values, [set(), set(EVERY)])
    assert fixed > 0.3
    assert published > fixed


# flaw by flaw


def test_fixing_every_cause_takes_noise_from_half_to_nothing(draws: np.ndarray) -> None:
    published, fixed = draws[:, 0], draws[:, len(EVERY)]
    assert 0.15 < published.min() <= published.max() < 0.75
    half = 3.18 * fixed.std(ddof=1) / 2  # Student's t, 3 degrees of freedom, 4 draws
    assert abs(fixed.mean()) < max(half, 0.03), f"r = {fixed.mean():.3f} ± {half:.3f} (95 % over 4 draws)"


def test_shuffled_folds_and_circular_voxels_each_give_noise_a_score(draws: np.ndarray) -> None:
    """replication.md's table: smooth noise and slow features, .51 whole, .21 and .38 alone, .01 with both fixed."""
    alone = dict(zip(EVERY, draws[:, len(EVERY) + 1 :].mean(axis=0), strict=True))
    assert 0.1 < alone["voxels"] < 0.4
    assert 0.25 < alone["folds"] < 0.65
    for harmless in ("row_shift", "confounds", "scaling"):
        assert abs(alone[harmless]) < 0.06, harmless


def test_steps_go_from_all_causes_to_none_and_then_to_each_alone() -> None:
    steps = ablation_steps(("voxels", "delay"))
    assert steps == [{"voxels", "delay"}, {"delay"}, set(), {"voxels"}, {"delay"}]


# how each is fixed


def windows(row_shift: bool = False, dropped: tuple[int, ...] = ()) -> _RunWindows:
    run, values = scene(1, dropped=dropped)
    return _RunWindows(run, whole_run_z(values), row_shift, 0)


def test_fixed_folds_keep_their_scans_apart_at_every_delay() -> None:
    d = windows()
    rows = np.arange(min(map(len, d.y.values())))
    first = ((d.onset + 4.0) / 2.0).astype(int)
    last = ((d.onset + d.duration + 10.0) / 2.0).astype(int)
    tested = []
    for train, test in d.folds(rows, shuffled=False):
        assert (np.diff(test) == 1).all()
        tested += test.tolist()
        for i in test:
            apart = np.maximum(first[train] - last[i], first[i] - last[train])
            assert apart.min() > GAP
    assert tested == rows.tolist()


def test_published_folds_share_scans() -> None:
    d = windows()
    first, last = ((d.onset + 4.0) / 2.0).astype(int), ((d.onset + d.duration + 4.0) / 2.0).astype(int)
    for train, test in d.folds(np.arange(N), shuffled=True):
        shares = [bool(((first[train] <= last[i]) & (first[i] <= last[train])).any()) for i in test]
        assert np.mean(shares) > 0.4


def test_fixed_choices_see_training_rows_alone() -> None:
    """Test rows' responses may be anything: voxels and delay that training rows choose stay."""
    run, values = scene(2)
    train = np.arange(90)
    before = _RunWindows(run, whole_run_z(values), False, 0)
    after = _RunWindows(run, whole_run_z(values), False, 0)
    for y in after.y.values():
        y[90:] = 100.0
    assert before.choose_delay(train) == after.choose_delay(train)
    np.testing.assert_array_equal(before.choose_voxels(train, 6.0), after.choose_voxels(train, 6.0))
    assert not np.array_equal(before.choose_voxels(np.arange(N), 6.0), after.choose_voxels(np.arange(N), 6.0))


def test_fixed_rows_meet_by_unit() -> None:
    run, values = scene(4, dropped=(20,))
    z = whole_run_z(values)
    by_unit, by_place = _RunWindows(run, z, False, 0), _RunWindows(run, z, True, 0)
    assert by_unit.units.tolist() == by_place.units.tolist()
    assert by_unit.onset[20] == run.onset[21]
    assert by_place.onset[20] == run.onset[20]


def test_a_fixed_confound_uses_the_slope_of_training_rows() -> None:
    """A test row that its own fold would explain away stays where it lies off the training rows' line."""
    from langcortex.encoding.replication.ablation import _residualise

    length = np.array([1.0, 2.0, 3.0, 4.0, 1.0, 2.0])[:, None]
    learnt, held = 2.0 * length[:4], np.array([[5.0], [9.0]])
    left = _residualise(learnt, held, length, np.arange(4), np.array([4, 5]))
    np.testing.assert_allclose(left, [[3.0], [5.0]])


# numbers


def ablation(n: int = 3) -> Ablation:
    together = np.array([[0.5, 0.2, 0.0], [0.4, 0.3, 0.1], [0.6, 0.1, -0.1]])[:n]
    return Ablation(
        ("voxels", "folds"), together, together[:, 1:], 16, "m", "01", ("a", "b"), 900, "phase", 4
    )


def test_intervals_are_students_over_draws() -> None:
    from scipy import stats

    mean, low, high = ablation().interval(ablation().together)
    np.testing.assert_allclose(mean, [0.5, 0.2, 0.0], atol=1e-12)
    true = stats.ttest_1samp(ablation().together, 0).confidence_interval()
    np.testing.assert_allclose(low, true.low)
    np.testing.assert_allclose(high, true.high)
    assert np.isnan(ablation(1).interval(ablation(1).together)[1]).all()


def test_json_goes_there_and_back() -> None:
    values = ablation().as_json()
    assert values["unit"].startswith("Pearson r")
    assert (values["n"], values["seed"], values["kind"]) == (3, 4, "phase")
    again = Ablation.from_json(values)
    np.testing.assert_array_equal(again.together, ablation().together)
    assert again.as_json() == values
    with pytest.raises(ValueError, match="no cause is called 'weather'"):
        Ablation.from_json({**values, "causes": ["weather"]})


def test_lines_name_every_step() -> None:
    lines = ablation().as_lines()
    assert "r = 0.500 as published" in lines[0]
    assert "voxels chosen in each fold's training rows: r = 0.200" in lines[1]
    assert "shuffled folds, alone: 0.000" in lines[2]


# what cannot be done


def test_an_unknown_cause_and_a_short_run_are_refused(rng: np.random.Generator) -> None:
    run, values = scene(0)
    with pytest.raises(FitError, match=r"A cause is one of voxels, .*; not 'luck'"):
        ablate_run(run, values, [{"luck"}])
    onset, duration = speech(rng, 15)
    short = RecipeRun(rng.standard_normal((15, 1, 20)), onset, duration, 2.0, np.ones(15, dtype=bool))
    with pytest.raises(FitError, match="at least 20 units"):
        ablate_run(short, rng.standard_normal((60, 50)), [set()])


def test_voxels_without_signal_are_never_chosen() -> None:
    run, values = scene(6)
    values[:, :1300] = np.nan
    kept = _RunWindows(run, whole_run_z(values), False, 0).choose_voxels(np.arange(N), 4.0)
    assert np.isin(np.arange(1300, 1500), kept).all()
    assert np.isfinite(ablate_run(run, values, [set(), set(EVERY)])).all()


def test_the_drawn_order_of_causes_is_that_of_the_steps() -> None:
    assert ablation().steps == ("as published", FLAWS["voxels"][1], FLAWS["folds"][1])
