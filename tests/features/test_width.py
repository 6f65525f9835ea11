"""Matched widths: seeded projections, the same for all layers, or components of the named runs."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from langcortex.errors import SettingsError
from langcortex.features.table import Features
from langcortex.features.width import match_width, widths_differ


def _table(name, width, rng, n=60):
    run = np.repeat(["a", "b"], n // 2)
    values = rng.standard_normal((n, width)) @ rng.standard_normal((width, width))
    ids = np.array([f"{r}/word-{i}" for i, r in enumerate(run)])
    return Features(name, ids, np.arange(n) * 0.5, np.full(n, 0.4), run, values.astype(np.float32), "last")


def test_a_difference_in_width_is_described(rng):
    wide, narrow = _table("large", 20, rng), _table("small", 8, rng)
    assert widths_differ(wide, narrow).startswith(
        "'large' has 20 columns and 'small' 8, so a difference may come from"
    )
    assert widths_differ(wide, wide) == ""


def test_the_wider_space_is_projected_and_the_narrower_one_unchanged(rng):
    wide, narrow = _table("large", 20, rng), _table("small", 8, rng)
    for projected, unchanged in (match_width(wide, narrow), match_width(narrow, wide)[::-1]):
        assert projected.values.shape == (60, 8)
        assert projected.name == "projection-8(large)"
        assert (projected.combine, projected.values.dtype) == ("last", np.float32)
        np.testing.assert_array_equal(projected.ids, wide.ids)
        assert unchanged is narrow


def test_a_projection_depends_on_the_seed_and_roughly_keeps_distances(rng):
    wide, narrow = _table("large", 400, rng), _table("small", 200, rng)
    first, again, reseeded = (match_width(wide, narrow, seed)[0].values for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, reseeded)
    ratio = np.linalg.norm(first[1:] - first[:-1], axis=1) / np.linalg.norm(
        wide.values[1:] - wide.values[:-1], axis=1
    )
    assert np.abs(ratio - 1).max() < 0.3


def test_layers_of_one_model_get_one_projection(rng):
    a, narrow = _table("large/layer-01", 20, rng), _table("small", 8, rng)
    doubled = Features("large/layer-02", a.ids, a.onset, a.duration, a.run, 2 * a.values, a.combine)
    np.testing.assert_allclose(
        match_width(doubled, narrow)[0].values, 2 * match_width(a, narrow)[0].values, rtol=1e-6
    )


def test_components_are_those_of_scikit_learn_from_the_named_runs_alone(rng):
    wide, narrow = _table("large", 20, rng), _table("small", 8, rng)
    components = match_width(wide, narrow, how="pca", learn_from=["a"])[0].values
    expected = (
        PCA(8, svd_solver="full").fit(wide.values[:30].astype(float)).transform(wide.values.astype(float))
    )
    np.testing.assert_allclose(np.abs(components), np.abs(expected), atol=1e-3)
    values = wide.values.copy()
    values[30:] = 0
    changed = Features("large", wide.ids, wide.onset, wide.duration, wide.run, values, "last")
    np.testing.assert_array_equal(
        match_width(changed, narrow, how="pca", learn_from=["a"])[0].values[:30], components[:30]
    )


def test_both_may_be_narrowed(rng):
    a, b = match_width(_table("large", 20, rng), _table("small", 8, rng), width=3)
    assert a.values.shape == b.values.shape == (60, 3)


def test_impossible_widths_are_errors(rng):
    wide, narrow = _table("large", 20, rng), _table("small", 8, rng)
    with pytest.raises(
        SettingsError, match="works by projection or pca, to a width from 1 to 8; not by 'pca' to 9"
    ):
        match_width(wide, narrow, how="pca", width=9)
    with pytest.raises(
        SettingsError, match="need more than 8 rows to learn from, but learn_from names runs with 0"
    ):
        match_width(wide, narrow, how="pca")
    with pytest.raises(SettingsError, match="whole number from 0, not -1"):
        match_width(wide, narrow, seed=-1)
