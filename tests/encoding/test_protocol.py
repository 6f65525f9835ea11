"""The protocol: folds that never share a run, or never share a scan; choices that are checked when made."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import LeaveOneGroupOut

from langcortex.cache import digest
from langcortex.encoding.protocol import Protocol, inner_folds, outer_folds
from langcortex.errors import FitError, SettingsError
from langcortex.results.null_curves import null_curves_as_json

RUN = np.repeat(["run-1", "run-2", "run-10", "run-3"], [5, 6, 4, 7])
SCANS = np.concatenate([np.stack([np.arange(n), np.arange(n)], axis=1) for n in (5, 6, 4, 7)])


def test_runs_are_left_out_one_at_a_time_as_scikit_learn_does():
    folds = outer_folds(RUN, SCANS, Protocol())
    expected = {str(RUN[test][0]): (train, test) for train, test in LeaveOneGroupOut().split(RUN, groups=RUN)}
    assert [str(RUN[f.test][0]) for f in folds] == ["run-1", "run-2", "run-10", "run-3"]
    for fold in folds:
        train, test = expected[str(RUN[fold.test][0])]
        np.testing.assert_array_equal(fold.train, train)
        np.testing.assert_array_equal(fold.test, test)


def test_inner_folds_leave_out_one_of_the_training_runs():
    for outer in outer_folds(RUN, SCANS, Protocol()):
        inner = inner_folds(outer.train, RUN, SCANS, Protocol())
        assert len(inner) == 3
        for fold in inner:
            assert set(RUN[fold.train]) & set(RUN[fold.test]) == set()
            assert set(np.concatenate(fold)) == set(outer.train)
            assert not set(np.concatenate(fold)) & set(outer.test)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9), st.integers(2, 12))
def test_groups_of_neighbouring_runs_hold_every_row_out_once(lengths, k):
    run = np.repeat([f"r{i}" for i in range(len(lengths))], lengths)
    scans = np.zeros((len(run), 2), dtype=int)
    folds = outer_folds(run, scans, Protocol(folds=k))
    assert len(folds) == min(k, len(lengths))
    assert np.concatenate([f.test for f in folds]).tolist() == list(range(len(run)))
    for fold in folds:
        assert set(run[fold.train]) & set(run[fold.test]) == set()
        assert len(fold.train) + len(fold.test) == len(run)
        held = list(dict.fromkeys(run[fold.test]))
        first = int(held[0][1:])
        assert held == [f"r{first + i}" for i in range(len(held))]


@given(st.integers(60, 120), st.integers(0, 8), st.integers(0, 4), st.integers(2, 6))
def test_in_a_single_run_no_training_row_shares_or_neighbours_a_scan_of_the_test(n, gap, width, k):
    run = np.full(n, "only")
    first = np.cumsum(np.random.default_rng(n).integers(0, 4, n))
    scans = np.stack([first, first + width], axis=1)  # rows rest on several scans, and overlap
    protocol = Protocol(folds=k, inner=2, gap=gap)
    try:
        folds = outer_folds(run, scans, protocol)
        nested = [(fold, inner_folds(fold.train, run, scans, protocol)) for fold in folds]
    except FitError:
        return
    assert np.concatenate([f.test for f in folds]).tolist() == list(range(n))
    for outer, inner in nested:
        for fold in (outer, *inner):
            used = {s for a, b in scans[fold.test] for s in range(a, b + 1)}
            for a, b in scans[fold.train]:
                assert all(abs(s - t) > gap for s in range(a, b + 1) for t in (min(used), max(used)))
                assert not used & set(range(a, b + 1))
        assert all(set(np.concatenate(f)) <= set(outer.train) for f in inner)


def test_no_row_is_left_out_of_training_for_nothing():
    run, scans = np.full(30, "only"), np.stack([np.arange(30), np.arange(30)], axis=1)
    fold = outer_folds(run, scans, Protocol(gap=2))[1]
    assert fold.test.tolist() == list(range(6, 12))
    assert fold.train.tolist() == [*range(4), *range(14, 30)]


def test_named_test_runs_are_scored_once_and_never_learnt_from():
    (fold,) = outer_folds(RUN, SCANS, Protocol(test_runs=("run-10", "run-2")))
    assert set(RUN[fold.test]) == {"run-2", "run-10"}
    assert set(RUN[fold.train]) == {"run-1", "run-3"}
    with pytest.raises(SettingsError, match="names 'run-4', but the runs are: run-1, run-2, run-10, run-3"):
        outer_folds(RUN, SCANS, Protocol(test_runs=("run-4",)))
    with pytest.raises(FitError, match="names every run"):
        outer_folds(RUN, SCANS, Protocol(test_runs=("run-1", "run-2", "run-3", "run-10")))


def test_too_few_rows_are_an_error_that_says_so():
    run, scans = np.full(12, "only"), np.stack([np.arange(12), np.arange(12)], axis=1)
    with pytest.raises(FitError, match="12 rows of one run are too few for 5 contiguous blocks"):
        outer_folds(run, scans, Protocol())
    with pytest.raises(
        FitError, match="With a gap of 9 scans, 0 rows are left to learn from beside a block of 4"
    ):
        outer_folds(run, scans, Protocol(folds=3, gap=9))


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"standardise": "all"}, "protocol.standardise is one of training, run, none; not 'all'"),
        ({"choose_by": "mse"}, "protocol.choose_by is one of r2, r; not 'mse'"),
        ({"delay_by": "voxel"}, "protocol.delay_by is one of fold, target; not 'voxel'"),
        ({"folds": 1}, "protocol.folds is 'runs' or a number of at least 2; not 1"),
        ({"inner": "rows"}, "protocol.inner is 'runs' or a number of at least 2; not 'rows'"),
        ({"penalties": ()}, "protocol.penalties needs one or more numbers above 0"),
        ({"penalties": (1.0, 0.0)}, "protocol.penalties needs one or more numbers above 0"),
        ({"pca": 0}, "protocol.pca is a number of components of at least 1"),
    ],
)
def test_a_wrong_choice_is_named(choice, said):
    with pytest.raises(SettingsError, match=said):
        Protocol(**choice)


def test_the_choices_that_name_a_stored_result_are_what_they_were():
    """Fits, delays and partitions are stored under `deciding()`, curves of noise under its JSON with the nulls."""
    fit = {
        "choose_by": "r", "confounds": ["a", "b"], "delay_by": "fold", "folds": 3, "gap": 5, "inner": "runs", "nested_axes": True,
        "pca": None, "penalties": [0.1, 10.0], "relative": True, "standardise": "training", "test_runs": ["run-1"],
    }  # fmt: skip
    nulls = {
        "name": "rigorous",
        "null": "block",
        "null_block": 12,
        "null_layers": "all",
        "null_penalties": "chosen",
    }
    protocol = Protocol(
        folds=3, test_runs=("run-1",), penalties=(0.1, 10.0), choose_by="r", confounds=("a", "b"), n_nulls=7, null="block",
        null_block=12, null_penalties="chosen", null_layers="all", leaks=("one",),
    )  # fmt: skip
    assert json.dumps(protocol.deciding(), sort_keys=True) == json.dumps(fit, sort_keys=True)
    assert digest(protocol.deciding()) == "a2c4367155dd010476ae3e2a50849868"
    assert digest(Protocol().deciding()) == "7d4ecc9f2628ba56d87ac682924ecbc4"
    noise = null_curves_as_json(protocol, "brain", {}, {})["protocol"]
    assert noise == fit | nulls
    assert list(noise) == [
        "name", "folds", "test_runs", "inner", "gap", "standardise", "pca", "penalties", "relative", "choose_by", "delay_by",
        "nested_axes", "confounds", "null", "null_block", "null_penalties", "null_layers",
    ]  # fmt: skip


def test_only_the_preset_of_the_published_recipe_is_published():
    assert Protocol(name="replication-2025").is_published
    assert not Protocol().is_published


def test_protocols_are_values():
    assert Protocol() == Protocol()
    assert Protocol(pca=5) != Protocol()
    assert hash(Protocol()) == hash(Protocol())
    assert Protocol().leaks == ()
