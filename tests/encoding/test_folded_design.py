"""A design under a protocol: every idea of it is worked out once, and is what the protocol says."""

import numpy as np
import pytest

from langcortex.encoding.folded_design import FoldedDesign, scored_responses
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import Protocol, inner_folds
from langcortex.errors import FitError

RUN = np.repeat(["a", "b", "c"], 20)


@pytest.fixture
def design(rng, arrays_design):
    X = {name: rng.standard_normal((60, p)) for name, p in (("x", 4), ("c", 2), ("d", 1))}
    Y = {delay: rng.standard_normal((60, 6)).astype(np.float32) for delay in (4.0, 6.0)}
    return arrays_design(X, Y, RUN)


def test_penalties_come_largest_first_and_are_found_again_by_value(design):
    folded = FoldedDesign(design, Protocol(penalties=(1, 100, 10)))
    assert folded.penalties.tolist() == [100.0, 10.0, 1.0]
    chosen = np.array([[1.0, 100.0, np.nan], [10.0, 10.0, 1.0]])
    assert folded.penalty_index(chosen).tolist() == [[2, 0, 0], [1, 1, 2]]


def test_test_segments_are_runs_or_blocks_of_a_run_that_is_cut(design, arrays_design):
    folded = FoldedDesign(design, Protocol())
    assert folded.segments == folded.segment_run.tolist() == ["a", "b", "c"]
    assert folded.segment_of_row.tolist() == RUN.tolist()
    assert folded.segment_rows(1)["b"].tolist() == list(range(20))
    part = FoldedDesign(design, Protocol(test_runs=("b",)))
    assert part.segments == ["b"]
    assert set(part.segment_of_row[RUN != "b"]) == {""}
    single = arrays_design({"x": np.eye(60)}, np.zeros((60, 1)), np.full(60, "a"))
    blocks = FoldedDesign(single, Protocol(folds=3, inner=2, gap=1))
    assert blocks.segments == ["a/block-0", "a/block-1", "a/block-2"]
    assert set(blocks.segment_run) == {"a"}


def test_a_nested_fold_has_the_rows_of_the_protocol(design):
    folded = FoldedDesign(design, Protocol(folds=2))
    for k, fold in enumerate(folded.folds):
        nested = folded.nested_fold(k)
        np.testing.assert_array_equal(nested.train, fold.train)
        np.testing.assert_array_equal(np.concatenate(nested.segments), fold.test)
        splits = inner_folds(fold.train, RUN, design.scans, folded.protocol)
        assert len(nested.inner) == len(splits)
        for (train, test), split in zip(nested.inner, splits, strict=True):
            np.testing.assert_array_equal(train, split.train)
            np.testing.assert_array_equal(test, split.test)
        assert folded.nested_fold(k, inner=False).inner == ()
        assert folded.nested_fold(k, outer=False).segments == ()


def test_a_feature_space_is_no_confound_of_itself(design):
    folded = FoldedDesign(design, Protocol(confounds=("c", "d")))
    assert folded.confounds(["x"]).shape == (60, 3)
    assert folded.confounds(["x"]) is folded.confounds(["y"])
    np.testing.assert_allclose(folded.confounds(["c"]), folded.confounds(["x"])[:, 2:], atol=1e-12)
    assert folded.confounds(["c", "d"]).shape == (60, 0)
    nuisance = folded.nuisance(["x"])
    np.testing.assert_array_equal(nuisance[:, 0], 1.0)
    np.testing.assert_array_equal(nuisance[:, 1:], folded.confounds(["x"]))
    with pytest.raises(FitError, match="The confound 'e' is not among the feature spaces: x, c, d"):
        FoldedDesign(design, Protocol(confounds=("e",))).confounds(["x"])


def test_folds_with_the_same_delays_share_their_responses(design):
    delays = np.array([[4.0], [6.0], [4.0]])
    folded = FoldedDesign(design, Protocol(), delays)
    assert folded.delays.shape == (3, 6)
    assert folded.folds_by_delay() == [[0, 2], [1]]
    ((targets, y),) = folded.responses(1)
    assert targets.tolist() == list(range(6))
    np.testing.assert_allclose(y, design.Y[6.0] - design.Y[6.0].mean(axis=0), atol=1e-6)
    assert [len(targets) for targets, _ in folded.responses(0, size=4)] == [4, 2]
    with pytest.raises(FitError, match="2 candidate delays"):
        _ = FoldedDesign(design, Protocol()).delays


def test_scored_responses_are_what_an_encoding_observes(design):
    protocol, delays = Protocol(confounds=("d",), test_runs=("a", "c")), np.array([[6.0]])
    responses = scored_responses(design, protocol, delays)
    observed = fit(design, "x", protocol, delays, keep_predictions=True).observed
    assert responses.segment.tolist() == [run for run in RUN if run != "b"]
    np.testing.assert_allclose(responses.values.T, observed[RUN != "b"], atol=1e-5)
