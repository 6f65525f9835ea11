"""The figure of the recipe's ablation: bars, intervals and a line at zero, in the report where there is an ablation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from langcortex.audit import write_ablation
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.replication.ablation import FLAWS, Ablation
from langcortex.errors import StoreError
from langcortex.report.ablation import (
    draw_ablation_picture,
    plot_ablation,
    read_ablation,
    write_ablation_caption,
)


@pytest.fixture
def ablation() -> Ablation:
    rng = np.random.default_rng(0)
    together = np.array([0.55, 0.48, 0.49, 0.01, 0.0, 0.0, 0.0]) + 0.02 * rng.standard_normal((5, 7))
    alone = np.array([0.21, 0.01, 0.47, 0.0, 0.0, 0.01]) + 0.02 * rng.standard_normal((5, 6))
    return Ablation(tuple(FLAWS), together, alone, 16, "llama", "EN057", ("run-1",), 9000, "phase", 3)


def test_each_step_has_a_bar_with_its_interval_and_a_line_marks_zero(ablation: Ablation) -> None:
    ax = plot_ablation(ablation)
    bars = sorted((p.get_y() + p.get_height() / 2, p.get_width()) for p in ax.patches)
    np.testing.assert_allclose([w for _, w in reversed(bars)], ablation.together.mean(axis=0))
    _, low, high = ablation.interval(ablation.together)
    ends = ax.collections[0].get_segments()  # type: ignore[attr-defined]  # lines of intervals
    np.testing.assert_allclose([s[:, 0] for s in ends], np.stack([low, high], axis=1))
    assert any(set(line.get_xdata()) == {0} for line in ax.lines if len(line.get_xdata()) == 2)  # type: ignore[arg-type]
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels[0] == "as published"
    assert labels[3] == "then: folds of neighbouring rows, with a gap"
    assert "Pearson r" in ax.get_xlabel()


def test_one_draw_has_no_interval(ablation: Ablation) -> None:
    single = dataclasses.replace(ablation, together=ablation.together[:1], alone=ablation.alone[:1])
    assert not plot_ablation(single).collections
    assert "interval)" not in write_ablation_caption(single)


def test_the_caption_states_unit_draws_seed_and_the_strongest_flaw(ablation: Ablation) -> None:
    caption = write_ablation_caption(ablation)
    for words in (
        "Pearson r",
        "5 draws, seed 3",
        "9,000 voxels",
        "layer 16 of llama",
        "shuffled folds (r = 0.4",
        "phases randomised",
    ):
        assert words in caption


def test_the_folder_of_results_keeps_it_for_the_report(ablation: Ablation, tmp_path: Path) -> None:
    assert read_ablation(tmp_path) is None
    recipe = Protocol(name="replication-2025")
    assert list(draw_ablation_picture(recipe, tmp_path)) == []
    write_ablation(ablation, tmp_path)
    again = read_ablation(tmp_path)
    assert again is not None
    assert again.as_json() == ablation.as_json()
    (picture,) = draw_ablation_picture(recipe, tmp_path)
    assert list(draw_ablation_picture(Protocol(), tmp_path)) == []
    assert picture.png.startswith(b"\x89PNG")
    (tmp_path / "ablation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StoreError, match=r"ablation\.json cannot be read"):
        read_ablation(tmp_path)
    assert list(draw_ablation_picture(recipe, tmp_path)) == []  # a report does without it
