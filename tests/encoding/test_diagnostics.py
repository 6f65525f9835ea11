"""Advice: said when it is due, silent when it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from langcortex.brain.space import Space
from langcortex.design.design import Design
from langcortex.encoding.diagnostics import diagnose
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import Protocol


def planted(rng: np.random.Generator, rows: int = 40, signal: float = 1.0) -> Design:
    run = np.repeat(["a", "b", "c"], rows)
    x = rng.standard_normal((len(run), 5))
    y = (signal * x @ rng.standard_normal((5, 6)) + rng.standard_normal((len(run), 6))).astype(np.float32)
    scans = np.stack([np.arange(len(run))] * 2, axis=1)
    names = np.array([f"t{i}" for i in range(6)])
    ids = np.array([f"row-{i}" for i in range(len(run))])
    again = 2 * x[:, :1] + 1e-3 * rng.standard_normal((len(run), 1))
    X = {"x": x, "same": again, "first": x[:, :1]}
    return Design(X, {0.0: y}, ids, run, scans, "01", Space("columns", names), {})


def test_nothing_is_said_of_a_good_fit(rng: np.random.Generator) -> None:
    design, protocol = planted(rng), Protocol(penalties=tuple(np.logspace(-4, 5, 10)), relative=False)
    assert diagnose(design, protocol, fit(design, "x", protocol), ["x"]) == []


def test_penalties_at_either_edge_of_the_grid_are_counted(rng: np.random.Generator) -> None:
    design = planted(rng)
    low = Protocol(penalties=(1e3, 1e4), relative=False)
    (warning,) = diagnose(design, low, fit(design, "x", low))
    assert warning.startswith("x, subject 01: 100% of the fits")
    assert "smallest penalty (1000). Add smaller ones" in warning
    weak = planted(rng, signal=0.05)
    high = Protocol(penalties=(1e-6, 1e-5), relative=False)
    encoding = fit(weak, "x", high)
    encoding = replace(encoding, inner=np.abs(encoding.inner))
    assert any("largest penalty (1e-05). Add larger ones" in one for one in diagnose(weak, high, encoding))


def test_small_inner_folds_are_named(rng: np.random.Generator) -> None:
    design, protocol = planted(rng, rows=6), Protocol(penalties=tuple(np.logspace(-4, 5, 10)), relative=False)
    warnings = diagnose(design, protocol, fit(design, "x", protocol))
    assert any("hold out as few as 6 rows" in warning for warning in warnings)


def test_features_that_confounds_explain_are_named(rng: np.random.Generator) -> None:
    design, protocol = planted(rng), Protocol(confounds=("first",))
    warnings = diagnose(design, protocol, fit(design, "x", protocol), ["same", "x"])
    assert [warning.split(",")[0] for warning in warnings if "explain 100% of its variance" in warning] == [
        "same"
    ]
