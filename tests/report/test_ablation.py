"""The picture of the recipe taken apart: bars, intervals and a line at zero, in the report where there is one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from langcortex.audit import write_ablation
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.replication.ablation import FLAWS, Ablation
from langcortex.errors import StoreError
from langcortex.report.ablation import ablation_caption, ablation_pictures, plot_ablation, read_ablation


@pytest.fixture
def found() -> Ablation:
    rng = np.random.default_rng(0)
    together = np.array([0.55, 0.48, 0.49, 0.01, 0.0, 0.0, 0.0]) + 0.02 * rng.standard_normal((5, 7))
    alone = np.array([0.21, 0.01, 0.47, 0.0, 0.0, 0.01]) + 0.02 * rng.standard_normal((5, 6))
    return Ablation(tuple(FLAWS), together, alone, 16, "llama", "EN057", ("run-1",), 9000, "phase", 3)


def test_a_bar_a_step_with_its_interval_and_a_line_at_zero(found: Ablation) -> None:
    ax = plot_ablation(found)
    bars = sorted((p.get_y() + p.get_height() / 2, p.get_width()) for p in ax.patches)
    np.testing.assert_allclose([w for _, w in reversed(bars)], found.together.mean(axis=0))
    _, low, high = found.interval(found.together)
    ends = ax.collections[0].get_segments()  # type: ignore[attr-defined]  # lines of intervals
    np.testing.assert_allclose([s[:, 0] for s in ends], np.stack([low, high], axis=1))
    assert any(set(line.get_xdata()) == {0} for line in ax.lines if len(line.get_xdata()) == 2)  # type: ignore[arg-type]
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels[0] == "as published"
    assert labels[3] == "then: folds of neighbouring rows, with a gap"
    assert "Pearson r" in ax.get_xlabel()


def test_one_draw_has_no_interval(found: Ablation) -> None:
    one = dataclasses.replace(found, together=found.together[:1], alone=found.alone[:1])
    assert not plot_ablation(one).collections
    assert "interval)" not in ablation_caption(one)


def test_the_caption_says_unit_draws_seed_and_the_strongest_cause(found: Ablation) -> None:
    caption = ablation_caption(found)
    for words in (
        "Pearson r",
        "5 draws, seed 3",
        "9,000 voxels",
        "layer 16 of llama",
        "shuffled folds (r = 0.4",
        "phases randomised",
    ):
        assert words in caption


def test_the_folder_of_results_keeps_it_for_the_report(found: Ablation, tmp_path: Path) -> None:
    assert read_ablation(tmp_path) is None
    recipe = Protocol(name="replication-2025")
    assert list(ablation_pictures(recipe, tmp_path)) == []
    write_ablation(found, tmp_path)
    again = read_ablation(tmp_path)
    assert again is not None
    assert again.as_json() == found.as_json()
    (picture,) = ablation_pictures(recipe, tmp_path)
    assert list(ablation_pictures(Protocol(), tmp_path)) == []
    assert picture.png.startswith(b"\x89PNG")
    (tmp_path / "ablation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StoreError, match=r"ablation\.json cannot be read"):
        read_ablation(tmp_path)
