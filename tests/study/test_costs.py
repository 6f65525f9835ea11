"""Estimates of time, disk and memory: what subjects share is counted once, and bytes are arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from langcortex.features.models.memory import ModelShape
from langcortex.stimulus.story import Story
from langcortex.study.costs import _fit_work, _n_folds, describe_card, estimate
from langcortex.study.settings import ModelSettings
from langcortex.study.settings_file import make_study

LLAMA = ModelShape(32, 4096, 8_030_000_000)


def test_folds_are_those_of_the_protocol() -> None:
    assert _n_folds(make_study({}), 9) == (9, 8)
    assert _n_folds(make_study({"protocol": {"inner": 4}}), 9) == (9, 4)
    assert _n_folds(make_study({"protocol": {"folds": 3}}), 9) == (3, 6)
    assert _n_folds(make_study({"protocol": {"test_runs": ["a", "b"]}}), 9) == (1, 7)
    assert _n_folds(make_study({}), 1)[0] == 5


def test_what_subjects_share_is_counted_once(story: Story) -> None:
    study = make_study({"models": [{"source": "m", "name": "m"}], "protocol": {"n_nulls": 0}, "jobs": 1})
    shared, separate = _fit_work(study, story, {"m": ModelShape(2, 64, 1000)}, {"m": 3}, 1000, 3)
    assert shared > 0
    more, same = _fit_work(study, story, {"m": ModelShape(2, 64, 1000)}, {"m": 3}, 2000, 3)
    assert more == shared
    assert same == pytest.approx(2 * separate, rel=0.2)


@pytest.mark.parametrize(
    ("settings", "fits"),
    [({"dtype": "float32"}, False), ({"dtype": "bfloat16"}, True), ({"dtype": "float32", "quantization": "4bit"}, True)],
)  # fmt: skip
def test_a_model_of_8_billion_parameters_on_a_card_of_24_gigabytes(
    story: Story, settings: dict[str, str], fits: bool
) -> None:
    """By hand: 32.1 GB in float32; 16.1 GB in bfloat16, and 0.6 GB of states (2,048 tokens × 33 layers × 4,096 × 2 bytes)."""
    line = describe_card(ModelSettings(source="m", **settings), LLAMA, 24.0, story, make_study({}))
    assert line.startswith("fits 24 GB" if fits else "does not fit 24 GB")
    assert "an estimate" in line
    assert ("use dtype = 'bfloat16'" in line) == (not fits)
    if settings == {"dtype": "bfloat16"}:
        assert "(16.1 weights, 0.6 states, " in line


def test_check_says_whether_a_model_fits_a_card(
    call: Callable[..., tuple[int, str, str]], planted_corpus: Callable[..., Path], tmp_path: Path
) -> None:
    path = planted_corpus(tmp_path, ("01",), runs=3)
    code, out, err = call("check", path, "--gpu", "24", "--set", "models.0.device=cuda")
    assert code == 0, err
    assert "model llama: fits 24 GB: " in out
    code, _, err = call("check", path, "--set", "models.0.device=cuda:9")
    assert code == 2
    assert "There is no GPU" in err


def test_the_disk_space_of_fits_is_that_of_their_arrays(story: Story) -> None:
    """By hand: 2 subjects × (3 layers + 1 control) × 100 targets × 4 bytes × (3 × 3 runs + 2 × 3 folds) = 48,000 bytes."""
    values = {"models": [{"source": "m", "name": "m"}], "features": {"controls": ["duration"]}}
    study = make_study(values)
    costs = estimate(study, story, {"m": ModelShape(2, 64, 1000)}, 100, 2, 3)
    assert costs["fits"].startswith("48 kB")
    assert np.all([key in costs for key in ("features", "reading the story", "fitting", "memory")])
