"""Scores of an encoding: pooled over test segments, averaged over regions."""

import numpy as np
import pytest

from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import region_means, score


def test_r_is_averaged_over_segments_and_r2_pooled(rng, arrays_design):
    run = np.repeat([f"run-{i}" for i in range(4)], (16, 14, 18, 15))
    x = rng.standard_normal((len(run), 12))
    y = x[:, :5] + rng.standard_normal((len(run), 5))
    e = fit(arrays_design({"x": x}, y, run), "x", Protocol(penalties=(0.3, 10.0, 100.0)))
    s = score(e)
    np.testing.assert_allclose(s.r, e.r.mean(axis=0))
    np.testing.assert_allclose(s.r2, 1 - e.sse.sum(axis=0) / e.sst.sum(axis=0))
    assert s.runs.tolist() == list(dict.fromkeys(run))
    np.testing.assert_allclose(s.r_by_run, e.r)
    np.testing.assert_allclose(s.r2_by_run, 1 - e.sse / e.sst)


def test_region_means_leave_out_undefined_targets():
    values = np.array([0.1, 0.3, np.nan, 0.2])
    regions = {"IFG": np.array([True, False, True, False]), "none": np.array([False, False, True, False])}
    means = region_means(values, regions)
    assert means["brain"] == pytest.approx(0.2)
    assert means["IFG"] == pytest.approx(0.1)
    assert np.isnan(means["none"])
