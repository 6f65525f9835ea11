"""The calibration of a study: the same pipeline, with every choice, on recordings that carry no story."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langcortex.audit.null_corpus import NullCorpus, read_spaces, separate_output
from langcortex.audit.null_recordings import RestScans, check_kind
from langcortex.brain.recording import Recording
from langcortex.cache import NOTES, atomic_write
from langcortex.errors import SettingsError
from langcortex.paths import as_path
from langcortex.progress import Progress
from langcortex.results.manifest import update_manifest
from langcortex.results.null_curves import null_curves_as_json
from langcortex.results.results import Results
from langcortex.study.corpus import open_corpus
from langcortex.study.run import run_study
from langcortex.study.settings import Study

LEVEL = 0.05
FILE = "null_calibration.json"  # in a study's output folder

UNITS = {
    "n": "runs of the whole study, each on other recordings without a story",
    "r_null_mean": "Pearson r of {0.region}, mean over models and the {0.n} draws",
    "r_null_q95": "Pearson r of {0.region}, 95 % quantile over models and the {0.n} draws",
    "false_positive_rate": "share of targets with p <= .05, uncorrected, mean over models and the {0.n} draws",
    "false_positive_interval": "the same; 95 %, Student's t over the {0.n} draws",
    "family_wise_rate": "share of the {0.n} draws in which any target has p <= .05, corrected over targets",
    "family_wise_interval": "the same; 95 %, Clopper and Pearson over the {0.n} draws",
    "n_nulls": "nulls behind each p",
    "r_null_by_layer": "Pearson r of {0.region}, mean over the {0.n} draws",
    "peak_layer": "layer number, 0 = embeddings",
    "peak_share": "share of the {0.n} draws in which a layer is highest",
    "r_null_of": "Pearson r of {0.region}, mean over the {0.n} draws",
    "r_claimed": "Pearson r of {0.region}, of the finished study",
}
"""The unit of each number of `Calibration.as_json`."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The scores and p values that a protocol gets from recordings without a story.

    Attributes
    ----------
    kind : of the recordings: "phase", "ar", "shift" or "rest"
    n : number of runs of the study, each on other recordings
    seed : of their randomness
    region : of the mean r
    reported : model → (n,) the r that the protocol reports: of the layer chosen in training, or, where it chooses
        none (the published recipe), of the best layer; for a study without models, control → (n,) its r
    layers : model → (n_layers,) layer numbers
    curves : model → (n, n_layers) mean r of each layer
    positives : model → (n,) share of targets with p ≤ .05; empty where the study computes no p
    claimed : model → the same r as `reported`, of the finished study in its output folder; empty without one
    family : model → (n,) whether any target has p ≤ .05 corrected over targets; empty where the study computes no p
    n_nulls : number of nulls behind each p
    null_curves : the curves of every draw as plain values, against which a later run of the study tests its own curves
    """

    kind: str
    n: int
    seed: int
    region: str
    reported: Mapping[str, np.ndarray]
    layers: Mapping[str, np.ndarray]
    curves: Mapping[str, np.ndarray]
    positives: Mapping[str, np.ndarray]
    claimed: Mapping[str, float]
    family: Mapping[str, np.ndarray] = field(default_factory=dict)
    n_nulls: int = 0
    null_curves: Mapping[str, Any] = field(default_factory=dict)

    @property
    def r_null_mean(self) -> float:
        """The mean r that noise gets, over models and draws."""
        return float(np.nanmean(np.concatenate(list(self.reported.values()))))

    @property
    def r_null_q95(self) -> float:
        """The r that one draw in twenty exceeds, over models and draws."""
        return float(np.nanquantile(np.concatenate(list(self.reported.values())), 0.95))

    @property
    def false_positive_rate(self) -> float | None:
        """The share of targets with p ≤ .05, which should be .05; None where the study computes no p."""
        return float(np.mean(list(self.positives.values()))) if self.positives else None

    @property
    def false_positive_interval(self) -> tuple[float, float] | None:
        """A 95 % interval of that share by Student's t over draws (targets of one draw are not independent)."""
        from scipy import stats

        if not self.positives or self.n < 2:
            return None
        by_draw = np.mean(list(self.positives.values()), axis=0)
        half = float(stats.t.ppf(0.975, self.n - 1) * by_draw.std(ddof=1) / np.sqrt(self.n))
        return max(0.0, float(by_draw.mean()) - half), float(by_draw.mean()) + half

    @property
    def family_wise_rate(self) -> dict[str, float]:
        """The share of draws in which any target has p ≤ .05 corrected over targets, model → share; .05 at most is right."""
        return {model: float(np.mean(positive)) for model, positive in self.family.items()}

    @property
    def family_wise_interval(self) -> dict[str, tuple[float, float]]:
        """A 95 % interval of that share (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404), model → low and high."""
        from scipy import stats

        intervals = {}
        for model, positive in self.family.items():
            interval = stats.binomtest(int(positive.sum()), len(positive)).proportion_ci()
            intervals[model] = (float(interval.low), float(interval.high))
        return intervals

    @property
    def r_null_by_layer(self) -> dict[str, dict[int, float]]:
        """The mean r that noise gets, model → layer → r."""
        return {
            m: dict(zip(self.layers[m].tolist(), np.nanmean(c, axis=0).tolist(), strict=True))
            for m, c in self.curves.items()
        }

    @property
    def peak_layer(self) -> dict[str, int]:
        """The layer where the mean curve of noise is highest, model → layer; flat curves peak anywhere."""
        return {m: max(curve, key=lambda layer: curve[layer]) for m, curve in self.r_null_by_layer.items()}

    @property
    def peak_share(self) -> dict[str, dict[int, float]]:
        """How often each layer is the highest of a draw, model → layer → share."""
        out = {}
        for m, curves in self.curves.items():
            peaks = np.argmax(np.nan_to_num(curves, nan=-np.inf), axis=1)
            counts = np.bincount(peaks, minlength=curves.shape[1]) / len(curves)
            out[m] = dict(zip(self.layers[m].tolist(), counts.tolist(), strict=True))
        return out

    def as_json(self) -> dict[str, Any]:
        """Return every number as plain values, with its unit; undefined numbers are None."""
        numbers = {
            "kind": self.kind,
            "n": self.n,
            "seed": self.seed,
            "region": self.region,
            "units": {name: unit.format(self) for name, unit in UNITS.items()},
            "r_null_mean": self.r_null_mean,
            "r_null_q95": self.r_null_q95,
            "false_positive_rate": self.false_positive_rate,
            "false_positive_interval": self.false_positive_interval,
            "family_wise_rate": self.family_wise_rate,
            "family_wise_interval": self.family_wise_interval,
            "n_nulls": self.n_nulls,
            "r_null_by_layer": self.r_null_by_layer,
            "peak_layer": self.peak_layer,
            "peak_share": self.peak_share,
            "r_null_of": {model: float(np.nanmean(r)) for model, r in self.reported.items()},
            "r_claimed": dict(self.claimed),
        }
        return {name: _replace_nan(value) for name, value in numbers.items()}

    def as_lines(self) -> list[str]:
        """Return the numbers in sentences."""
        lines = [
            f"Run {self.n} times on recordings without a story ({self.kind}, seed {self.seed}): mean r of {self.region} is "
            f"{self.r_null_mean:.4f}, and below {self.r_null_q95:.4f} in 95 %."
        ]
        for model, r in self.reported.items():
            claim = f"; claimed: {self.claimed[model]:.4f}" if model in self.claimed else ""
            lines.append(f"{model}: noise gets r = {np.nanmean(r):.4f}{claim}.")
        for model, peak in self.peak_layer.items():
            curve = self.r_null_by_layer[model]
            lines.append(
                f"{model}: noise peaks at layer {peak} (r = {curve[peak]:.4f}; lowest {min(curve.values()):.4f}), which is highest in "
                f"{self.peak_share[model][peak]:.0%} of runs; by chance {1 / len(curve):.0%}."
            )
        if self.false_positive_rate is None:
            lines.append("The study computes no p that could be at most .05.")
        else:
            ends = self.false_positive_interval
            interval = f" (95 % interval over runs {ends[0]:.1%} to {ends[1]:.1%})" if ends else ""
            lines.append(f"{self.false_positive_rate:.1%} of targets have p ≤ .05{interval}; 5 % should.")
        for model, share in self.family_wise_rate.items():
            low, high = self.family_wise_interval[model]
            lines.append(
                f"{model}: in {share:.1%} of runs (95 % interval {low:.1%} to {high:.1%}) some target has p ≤ .05 corrected over targets; "
                "5 % at most should be."
            )
        return lines


def calibrate(
    study: Study,
    n: int,
    kind: str = "phase",
    seed: int = 0,
    rest_path: Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Run a study `n` times on recordings that carry no story.

    Words, features, rows, folds, choices and tests are the study's own; only the responses are replaced. Each model is
    loaded and reads the story once for all runs. Nothing is written to the study's output folder.

    Parameters
    ----------
    study : from `langcortex.study.settings_file.read_study`
    n : number of runs; from 20, a false-positive rate is estimated to about .01
    kind : "phase" (phases randomised), "ar" (autoregressive noise), "shift" (each run shifted circularly) or "rest"
    seed : of the recordings' randomness
    rest_path : a recording of rest, or a folder of them (`langcortex.audit.null_recordings.read_rest`); for "rest" only
    progress : called as runs are done

    Returns
    -------
    Calibration

    Raises
    ------
    SettingsError : an unknown kind, or a corpus without scans, whose responses have no order in time
    """
    check_kind(kind, rest_path)
    if n < 1:
        raise SettingsError(f"A calibration needs 1 or more runs; not {n}.")
    corpus = open_corpus(study)
    memory: dict[tuple[str, str], Recording] = {}
    rests: list[tuple[RestScans, ...]] = []
    NullCorpus(corpus, kind, (seed, 0), rest_path, memory, rests).check()
    spaces = read_spaces(study, corpus, progress)
    draws: list[Results] = []
    for draw in range(n):
        if progress:
            progress("runs without a story", draw, n)
        null_corpus = NullCorpus(corpus, kind, (seed, draw), rest_path, memory, rests)
        with tempfile.TemporaryDirectory(prefix="langcortex-null-") as folder:
            draws.append(run_study(separate_output(study, folder), corpus=null_corpus, spaces=spaces))
    if progress:
        progress("runs without a story", n, n)
    return _calibration(study, kind, seed, draws)


def write_calibration(calibration: Calibration, folder: Path | str) -> Path:
    """Write ``null_calibration.json`` into a study's output folder, beside its results."""
    folder = as_path(folder)
    with atomic_write(folder / FILE) as draft:
        values = calibration.as_json() | dict(calibration.null_curves)
        draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    update_manifest(folder, "audit", [folder / FILE], study="", only=[FILE])
    return folder / FILE


def _calibration(study: Study, kind: str, seed: int, draws: Sequence[Results]) -> Calibration:
    first = draws[0]
    curves = {m: np.stack([d.curve(m).mean(axis=0).to_numpy() for d in draws]) for m in first.models}
    reported = {
        name: np.array([_reported(d.scores, d.region)[name] for d in draws])
        for name in _reported(first.scores, first.region)
    }
    possible = first.protocol.n_nulls >= 19  # fewer nulls give no p of .05
    return Calibration(
        kind=kind,
        n=len(draws),
        seed=seed,
        region=first.region,
        reported=reported,
        layers={m: first.curve(m).columns.to_numpy(dtype=int) for m in first.models},
        curves=curves,
        positives={m: np.array([_share_positive(d.p[m]) for d in draws]) for m in first.p} if possible else {},
        claimed=_claimed(study, first),
        family={m: np.array([_any_positive(d.p_corrected[m]) for d in draws]) for m in first.p_corrected} if possible else {},
        n_nulls=first.protocol.n_nulls,
        null_curves=null_curves_as_json(first.protocol, first.region, {m: first.curve(m).columns.to_numpy(dtype=int) for m in curves}, curves),
    )  # fmt: skip


def _replace_nan(value: Any) -> Any:
    """Put None in the place of NaN."""
    if isinstance(value, Mapping):
        return {key: _replace_nan(number) for key, number in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def _share_positive(p: np.ndarray) -> float:
    defined = p[np.isfinite(p)]
    return float((defined <= LEVEL).mean()) if len(defined) else float("nan")


def _any_positive(p: np.ndarray) -> bool:
    return bool((p[np.isfinite(p)] <= LEVEL).any())


def _reported(scores: pd.DataFrame, region: str) -> dict[str, float]:
    """Return the r that a study reports of each model, averaged over subjects; of each control where there is no model."""
    rows = scores[(scores.run == "all") & (scores.region == region) & (scores.subject != "average")]
    chosen = rows[rows.metric == "r_chosen"].groupby("model", sort=False).value.mean()
    if len(chosen):
        return {str(model): float(r) for model, r in chosen.items()}
    plain = rows[rows.metric == "r"]
    layered = plain[plain.layer.notna()]
    if len(layered):
        best = layered.groupby(["model", "layer"], sort=False).value.mean().groupby("model", sort=False).max()
    else:
        best = plain.groupby("model", sort=False).value.mean()
    return {str(model): float(r) for model, r in best.items()}


def _claimed(study: Study, null: Results) -> dict[str, float]:
    """Read the r that the study reported, where it was run already by the same protocol."""
    table, summary = study.output_folder / "scores.tsv", study.output_folder / "summary.json"
    if not (table.is_file() and summary.is_file()):
        return {}
    try:
        protocol = json.loads(summary.read_text(encoding="utf-8"))["protocol"]
        scores = pd.read_csv(table, sep="\t", na_values=["n/a"], dtype={"subject": str, "run": str})
        return _reported(scores, null.region) if protocol == null.protocol.name else {}
    except (ValueError, KeyError, AttributeError) as error:
        NOTES.warning(
            f"{table} or {summary} cannot be read ({error}), so noise is not compared with them. Run the study again."
        )
        return {}
