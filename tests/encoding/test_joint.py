"""Feature spaces that are fitted together: their names are checked, their bands prepared once, targets come in slabs."""

import numpy as np
import pytest

from langcortex.encoding import joint
from langcortex.encoding.folded_design import FoldedDesign
from langcortex.encoding.prepare import PreparedCache
from langcortex.encoding.protocol import Protocol
from langcortex.errors import FitError

RUN = np.repeat(["a", "b", "c"], 20)
TRAIN = np.arange(40)


@pytest.fixture
def design(rng, arrays_design):
    X = {name: rng.standard_normal((60, p)) for name, p in (("x", 8), ("z", 5), ("c", 1))}
    return arrays_design(X, rng.standard_normal((60, 700)).astype(np.float32), RUN)


def test_a_band_is_prepared_once_for_all_fits_that_share_a_cache(design):
    folded, cache = FoldedDesign(design, Protocol(confounds=("c",))), PreparedCache()
    first, _ = joint.band_preparers(folded, ["x", "z"], {}, cache)
    (again,) = joint.band_preparers(folded, ["x"], {}, cache)
    assert again(TRAIN) is first(TRAIN)
    assert again(TRAIN[:30]) is not first(TRAIN)
    (few,) = joint.band_preparers(folded, ["x"], {"x": 3}, cache)
    assert (len(first(TRAIN).s), len(few(TRAIN).s)) == (8, 3)


def test_slabs_hold_every_target_once_and_no_more_than_memory_allows(design, monkeypatch):
    folded = FoldedDesign(design, Protocol())
    monkeypatch.setattr(joint, "MEMORY", 300 * 1000)
    slabs = [targets for targets, _ in joint.response_slabs(folded, 0, 1000)]
    assert [len(targets) for targets in slabs] == [300, 300, 100]
    assert np.concatenate(slabs).tolist() == list(range(700))


def test_spaces_that_are_fitted_are_no_confounds():
    protocol = joint.without_spaces(Protocol(confounds=("c", "x")), ["x", "z"])
    assert protocol.confounds == ("c",)


@pytest.mark.parametrize(
    ("spaces", "confounds", "pca", "message"),
    [
        ([], (), {}, "No feature space is named"),
        (["x", "x"], (), {}, "'x' is named twice"),
        (["y"], (), {}, "The feature space 'y' is not among the feature spaces: x, z, c"),
        (["x"], ("y",), {}, "The confound 'y' is not among"),
        (["x"], (), {"z": 2}, "pca names 'z', which is not among the spaces to be fitted: x"),
        (["x"], (), {"x": 0}, "pca keeps 0 components of 'x'"),
    ],
)
def test_names_that_cannot_be_fitted_are_refused(design, spaces, confounds, pca, message):
    with pytest.raises(FitError, match=message):
        joint.check_spaces(design, spaces, Protocol(confounds=confounds), pca)
