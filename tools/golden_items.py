"""What `golden.py` compares: run once in each tree, with the package of that tree alone.

    PYTHONPATH=TREE/src python tools/golden_items.py TREE FOLDER NAME...

Each name is a function below, which yields items: a name, and a value that must not change. The numbers in a value, and
ids, are written to ``FOLDER/FUNCTION/ITEM.npz``. Sentences are left out, because words may change.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import importlib
import inspect
import json
import os
import re
import sys
import tempfile
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]

# --- What the trees call things. All that depends on names is in this section.

HOMES = {
    "brain.recording recording": "Recording Responses",
    "brain.space space": "Space",
    "design.design design": "Delays HRF align_responses align_sentences align_scans=align",
    "design.lag clock": "find_lag",
    "encoding.banded banded": "fit_bands",
    "encoding.nested_cv encoding": "fit_layers",
    "encoding.null_test nulls": "null_scores null_test",
    "encoding.prepare plans": "Engine PreparedCache=Plans",
    "encoding.protocol protocol": "Protocol",
    "encoding.scores encoding": "score",
    "encoding.selection encoding": "assemble_chosen choose_delays choose_layers",
    "encoding.stacking stacking": "stack",
    "encoding.variance_partition unique": "partition_subject",
    "features.table": "Features",
    "nulls.heldout_test chance": "time_test",
    "nulls.surrogates surrogates": "draw_null",
    "results.files saved": "write_tables",
    "ridge.backend how": "Backend=How",
    "simulation.demo demo": "run_demo",
    "stats.comparison comparison": "compare compare_chosen correct_over_pairs=corrected_over_pairs",
    "stats.group group": "fit_mixed_model=mixed_model tfce",
    "stats.layer_curve layers": "analyse_layer_curve=inverted_u flat_test profile_test",
    "stats.noise_ceiling ceilings": "inter_subject_ceiling=between normalise",
    "stats.null_counts resampling": "adjust_p=adjusted",
    "stats.null_counts chance": "false_discovery",
    "stats.repeat_ceiling repeats": "estimate_signal_power=signal_power",
    "stats.resampling resampling": "bootstrap",
    "stats.sign_flips group": "sign_flip",
    "stimulus.story story": "make_story",
    "study.feature_spaces reading": "FeatureSpaces=Spaces FeatureTables=Tables",
    "study.run study": "run_study write_results",
    "study.settings_file settings": "make_study read_study",
}
"""Modules, the newest first → names in them, ``NOW=BEFORE`` where one changed."""

ALIASES = {
    "areas": ("regions",), "average": ("average_subject",), "bayes": ("bayes_factor",), "beyond": ("against_noise",),
    "detectable": ("detectable_difference",), "inside": ("targets",), "interval": ("interval_resampling",),
    "keep": ("keep_predictions",), "n_gammas": ("n_band_weights",), "nested_axes": ("nested_components",),
    "others": ("other_subjects",), "people": ("group_tests",), "perfect": ("perfect_model",),
    "piece_run": ("segment_run",), "pieces": ("segments",), "resampled": ("resampling",), "row_piece": ("row_segment",),
    "spaces": ("feature_spaces",), "split": ("product_measure",), "tested": ("p_resampling",), "whole": ("pooled",),
}  # fmt: skip
"""Parameters and attributes as they were → what they may be called later. Items carry the first name."""
FIRST = {later: first for first, several in ALIASES.items() for later in several}


@functools.cache
def find(name: str) -> Any:
    """Return what this tree calls `name`."""
    for modules, names in HOMES.items():
        called = next((n for n in (entry.split("=") for entry in names.split()) if n[0] == name), [])
        for module, attribute in ((m, a) for m in modules.split() for a in called):
            try:
                return getattr(importlib.import_module(f"langcortex.{module}"), attribute)
            except ModuleNotFoundError as error:
                if not str(error.name).startswith("langcortex"):
                    raise
            except AttributeError:
                continue
    raise LookupError(f"This tree has no '{name}' where HOMES looks for it.")


def read(value: Any, name: str) -> Any:
    """Return an attribute by its first name or a later one."""
    return getattr(value, next((n for n in (name, *ALIASES.get(name, ())) if hasattr(value, n)), name))


def call(name: str, /, *values: Any, **keywords: Any) -> Any:
    """Call a function or class, with keywords by the names that its signature has."""
    parameters = inspect.signature(find(name)).parameters
    now = {k: next((n for n in (k, *ALIASES.get(k, ())) if n in parameters), k) for k in keywords}
    return find(name)(*values, **{now[k]: value for k, value in keywords.items()})


def fit(
    name: str, /, *values: Any, regime: str = "auto", on: str = "numpy", jobs: int = 0, **more: Any
) -> Any:
    """Call a function that fits, with an engine, or with the cache, backend and executor that an engine replaces."""
    executor = ThreadPoolExecutor(jobs) if jobs else None
    backend, cache = find("Backend")(on, regime), find("PreparedCache")()
    parameters = inspect.signature(find(name)).parameters
    parts = {"backend": backend, "how": backend, "plans": cache, "executor": executor, "pool": executor}
    if not {"backend", "engine", "how"} & set(parameters):
        raise LookupError(f"'{name}' takes no backend by a name that is known here.")
    if "engine" in parameters:
        fields = inspect.signature(find("Engine")).parameters
        parts = {"engine": find("Engine")(**{k: part for k, part in parts.items() if k in fields})}
    try:
        return call(name, *values, **{k: part for k, part in parts.items() if k in parameters}, **more)
    finally:
        if executor:
            executor.shutdown()


# --- A planted study, the same in both trees.

RUNS = {"run-1": 57, "run-2": 60, "run-3": 63, "run-4": 58}  # sentences
TR, DELAY, N_TARGETS = 2.0, 6.0, 40
WIDTHS = {"narrow": 12, "middle": 40, "wide": 300}  # columns of each feature space
REGIONS = {"language": np.arange(N_TARGETS) < 22, "other": np.arange(N_TARGETS) >= 22}
AT = np.full((len(RUNS), 1), DELAY)
REGIMES = ("auto", "pairs", "axes", "kernel")
KINDS = ("shift", "block", "phase")
Items = Iterator[tuple[str, Any]]


def random(*seed: int) -> np.random.Generator:
    """Return a source of randomness that only its seed decides."""
    return np.random.default_rng([20260, *seed])


@functools.cache
def story() -> Any:
    """Return a story of four runs of unequal length."""
    words, onsets, durations = {}, {}, {}
    for i, (run, n_sentences) in enumerate(RUNS.items()):
        lengths = random(1, i).integers(3, 8, n_sentences).tolist()
        words[run] = [f"w{k}{'.' * (k == n - 1)}" for n in lengths for k in range(n)]
        durations[run] = random(2, i).uniform(0.15, 0.45, sum(lengths)).round(3)
        pauses = np.array([0.7 if word == "w0" else 0.02 for word in words[run]])
        onsets[run] = np.cumsum(pauses + np.roll(durations[run], 1)).round(3)
    return call("make_story", words, onsets, durations, name="planted")


def table(name: str, values: np.ndarray, combine: str = "mean", pieces: str = "words") -> Any:
    """Return features with a row per word or sentence."""
    p = getattr(story(), pieces)
    return find("Features")(name, p.ids, p.onset, p.duration, p.run, values.astype(np.float32), combine)


@functools.cache
def features() -> dict[str, Any]:
    """Return feature spaces by name, and one control."""
    spaces = {"duration": table("duration", story().duration[:, None], "sum")}
    for i, (name, width) in enumerate(WIDTHS.items()):
        scale = random(3, i).uniform(0.2, 3.0, width)
        spaces[name] = table(name, random(4, i).standard_normal((len(story().ids), width)) * scale)
    return spaces


@functools.cache
def space() -> Any:
    """Return the space of the planted targets."""
    return find("Space")("columns", np.array([f"t{i:02d}" for i in range(N_TARGETS)]), regions=REGIONS)


@functools.cache
def recordings(subject: str, gaps: bool = True) -> tuple[Any, ...]:
    """Return a recording per run; with `gaps`, target 0 is constant and target 1 is NaN."""
    follows = np.hstack([features()[name].values[:, :6] for name in ("narrow", "wide")])
    weight = random(5).standard_normal((12, N_TARGETS)) / 4
    weight[:6, 22:], weight[6:, :14], weight[:, 30:] = 0.0, 0.0, 0.0
    series = []
    for i, run in enumerate(RUNS):
        onset = story().onset[story().run == run]
        n = int((onset.max() + 15.0) / TR)
        scan = ((onset + DELAY) / TR).astype(int)
        signal = np.zeros((n, 12))
        np.add.at(signal, scan, follows[story().run == run])
        values = random(6, i, *subject.encode()).standard_normal((n, N_TARGETS))
        for t in range(1, n):
            values[t] += 0.6 * values[t - 1]
        values += signal / np.maximum(np.bincount(scan, minlength=n), 1)[:, None] @ weight
        if gaps:
            values[:, 0], values[:, 1] = 1.5, np.nan
        onsets = TR * np.arange(n)
        series.append(find("Recording")(values.astype(np.float32), onsets, TR, run, subject, space()))
    return tuple(series)


@functools.cache
def design() -> Any:
    """Return a row per sentence, at every delay."""
    return call("align_sentences", story(), features(), recordings("01"))


@functools.cache
def arrays() -> Any:
    """Return the same rows at one delay in float64, with a further space of one dimension."""
    X = {name: np.asarray(design().X[name], dtype=np.float64) for name in design().X}
    X["line"] = np.outer(X["narrow"][:, 0], np.arange(1.0, 6.0))
    return dataclasses.replace(design(), X=X, Y={0.0: np.asarray(design().Y[DELAY], dtype=np.float64)})


def protocol(**choices: Any) -> Any:
    """Return a protocol with one confound and few penalties."""
    usual = {"confounds": ("duration",), "penalties": (0.1, 1.0, 10.0, 100.0, 1e3), "pca": 8, "n_nulls": 20}
    return call("Protocol", **(usual | choices))


@functools.cache
def encodings(pca: int | None = 8) -> list[Any]:
    """Return a fit of each feature space at the planted delay, with its predictions."""
    return list(call("fit_layers", design(), list(WIDTHS), protocol(pca=pca), AT, keep=True))


# --- What is compared: each function yields names and values.


def designs() -> Items:
    """Yield the rows of every kind of alignment, and the lag between the clocks."""
    ids = [random(7).permutation(story().sentences.ids[story().sentences.run == run])[5:] for run in RUNS]
    answers = [
        find("Responses")(random(8).standard_normal((len(i), N_TARGETS)), i, run, "01", space())
        for run, i in zip(RUNS, ids, strict=True)
    ]
    words, scans = (story(), features()), recordings("01")
    for name, rows in {
        "sentences": design(),
        "two delays": call("align_sentences", *words, scans, (2.0, 8.0)),
        "glover": call("align_scans", *words, scans, find("HRF")()),
        "spm": call("align_scans", *words, scans, find("HRF")("spm"), "error", (4.0, 6.0)),
        "delays": call("align_scans", *words, scans, find("Delays")((2.0, 4.0, 6.0))),
        "answers": call("align_responses", *words, answers),
    }.items():
        yield name, [rows.ids, rows.run, rows.scans, len(rows.left_out), dict(rows.X), dict(rows.Y)]
    yield "lag", call("find_lag", [(story(), recording) for recording in scans], 1)


def fits() -> Items:
    """Yield delays, encodings, scores and layers, in every regime and with every choice of a protocol."""
    names = list(WIDTHS)
    for regime in REGIMES:
        for by, metric in (("fold", "r2"), ("target", "r")):
            p = protocol(delay_by=by, choose_by=metric)
            yield f"delays {by} {regime}", fit("choose_delays", design(), names[::2], p, regime=regime)
        for pca in (8, 20, None):
            for nested in (True, False):
                p, name = protocol(pca=pca, nested_axes=nested), f"{regime} pca={pca} nested={nested}"
                yield name, fit("fit_layers", design(), names, p, AT, regime=regime)
    yield "delays in threads", fit("choose_delays", design(), names, protocol(pca=20), jobs=2)
    for choice in (
        {"standardise": "run"}, {"standardise": "none"}, {"relative": False}, {"relative": False, "pca": None},
        {"choose_by": "r"}, {"choose_by": "r", "pca": None, "nested_axes": False}, {"confounds": ()},
        {"confounds": ("duration", "narrow")}, {"penalties": (10.0,)}, {"inner": 2, "folds": 2}, {"test_runs": ("run-2",)},
    ):  # fmt: skip
        n_folds = 2 if "folds" in choice else 1 if "test_runs" in choice else 4
        name = ", ".join(f"{key}={value}" for key, value in choice.items())
        yield name, fit("fit_layers", design(), names, protocol(**choice), AT[:n_folds])
    by_target = np.where(np.arange(N_TARGETS) % 3, 6.0, 4.0) + 0 * AT
    yield "delays by target", fit("fit_layers", design(), names, protocol(), by_target)
    yield "float64", fit("fit_layers", arrays(), [*names, "line"], protocol(), keep=True)
    yield "torch", fit("fit_layers", design(), names, protocol(pca=20), AT, on="torch")
    short = call("align_sentences", story().take(["run-1"]), features(), recordings("01")[:1])
    yield "one run", fit("fit_layers", short, names, protocol(gap=2), np.full((5, 1), DELAY))
    for pca in (8, None):
        layers, best = encodings(pca), call("choose_layers", encodings(pca))
        chosen = call("assemble_chosen", layers, best, design(), protocol(pca=pca), "chosen")
        yield f"layers pca={pca}", [layers, best, chosen, [call("score", e) for e in (*layers, chosen)]]


def nulls() -> Items:
    """Yield surrogates and refitted nulls: of every kind, penalties kept and chosen, few and many nulls and axes."""
    for kind in KINDS:
        for i in range(2):
            rows = np.asarray(design().Y[DELAY])[:, 2:]
            yield f"{kind} draw {i}", call("draw_null", kind, design().run, random(41, i), block=9)(rows)
        for chosen in ("kept", "chosen"):
            p = functools.partial(protocol, null=kind, null_penalties=chosen, null_block=12)
            for name, pca, n in (
                ("wide", 8, 20),
                ("narrow", 8, 200),
                ("wide", None, 20),
                ("narrow", None, 200),
            ):
                values = (
                    design(),
                    [name] * 4,
                    p(pca=pca, n_nulls=n),
                    encodings(pca)[list(WIDTHS).index(name)],
                    7,
                )
                yield f"{kind} {chosen} {name} pca={pca}", fit("null_scores", *values)
            tested = [([name] * 4, e) for name, e in zip(WIDTHS, encodings(), strict=True)]
            yield f"{kind} {chosen} test", fit("null_test", design(), tested, p(), [7, 1], jobs=2)
            yield f"{kind} {chosen} torch", fit("null_test", design(), tested[:1], p(), 7, on="torch")
    place = np.arange(len(design().run))
    run, scans = np.full(len(place), "run-1"), np.stack([place, place + 1], axis=1)
    blocks, p = dataclasses.replace(arrays(), run=run, scans=scans), protocol(folds=8, inner=3, gap=2)
    for chosen in ("kept", "chosen"):
        p = dataclasses.replace(p, null_penalties=chosen)
        (encoding,) = fit("fit_layers", blocks, ["middle"], p)
        yield f"blocks of one run, {chosen}", fit("null_scores", blocks, ["middle"] * 8, p, encoding, 3)


def heldout() -> Items:
    """Yield tests of held-out predictions against every kind of null over time."""
    observed, piece = (read(encodings()[0], name) for name in ("observed", "row_piece"))
    predicted = np.stack([read(encoding, "predicted") for encoding in encodings()])
    for kind in KINDS:
        for n in (30, 1100):
            yield f"{kind} {n}", call("time_test", observed, predicted[0], piece, n, random(9), kind, 12)
        yield f"{kind} layers", call("time_test", observed, predicted, piece, 60, random(10), kind, 10)
        double = (observed.astype(float), predicted.astype(float))
        yield f"{kind} float64", call("time_test", *double, piece, 60, random(11), kind, 10)


def joint() -> Items:
    """Yield banded ridge, stacking and variance partitions."""
    for choice in (
        {}, {"pca": None}, {"relative": False, "pca": None, "choose_by": "r"}, {"confounds": (), "nested_axes": False}
    ):  # fmt: skip
        names, p = ["narrow", "middle", "duration"], protocol(**choice)
        yield f"bands {choice}", call("fit_bands", design(), names, p, random(12), 8, AT)
        yield f"stack {choice}", call("stack", design(), names, p, AT, keep=True)
    few = {"narrow": 5, "wide": 20}
    yield "bands float64", call("fit_bands", arrays(), list(few), protocol(), random(13), 6, pca=few)
    bands = {"model": [["narrow"], ["narrow"], ["middle"], ["narrow"]], "sound": [["duration"]] * 4}
    for more, inside in (({}, None), ({"twin": [["wide", "line"]] * 4}, REGIONS["language"])):
        values, options = (arrays(), "model", bands | more, protocol(pca=10)), {"n_gammas": 6, "seed": 4}
        shares = call("partition_subject", *values, inside=inside, **options)
        pooled = read(shares, "whole")
        parts = [pooled.unique, pooled.shared, pooled.omega, pooled.by_region(REGIONS)]
        yield f"partition of {2 + len(more)}", [shares, parts]


def tests() -> Items:
    """Yield comparisons of models, tests over subjects and tests of layer curves."""
    pairs = []
    for unit, n in (("subjects", 8), ("subjects", 15), ("runs", 6), ("runs", 14)):
        a, b = random(14, n).standard_normal((2, n, 7)) * 0.05 + np.array([[[0.03]], [[0.0]]])
        for interval in ("stretched", "percentile", "bca", "t"):
            options = (a, b, np.arange(7), ("a", "b"), unit, random(15), 0.02, 500, interval)
            by_t = [call("compare", *options, studentise=studentise) for studentise in (None, True, False)]
            yield f"compare {n} {unit} {interval}", by_t
        pairs.append(call("compare_chosen", a[:, 2], b[:, 2], ("a", "b"), unit, random(16), 0.02, 500))
    yield "pairs", call("correct_over_pairs", pairs)
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[1:5, 1:5, 1:4] = True
    names = np.arange(int(mask.sum())).astype(str)
    volume = find("Space")("volume", names, mask=mask, affine=np.diag([4.0, 4.0, 4.0, 1.0]))
    for tail in ("greater", "two"):
        for n in (6, 14):
            scores = random(17, n).standard_normal((n, 3, N_TARGETS)) * 0.1 + 0.04
            scores[:, :, 3], scores[2, 0, 5] = 0.0, np.nan
            for name, values in (("targets", scores[:, 0]), ("layers", scores)):
                yield f"signs {n} {tail} {name}", call("sign_flip", values, random(18), 300, tail)
        scores = random(19).standard_normal((7, len(names))) + np.linspace(0, 1.5, len(names))
        yield f"tfce {tail}", call("tfce", scores, volume, random(20), 40, tail)
    index = pd.MultiIndex.from_product(
        [list("123456"), list(RUNS), list("abc")], names=("subject", "run", "model")
    )
    frame = index.to_frame(index=False)
    frame["score"] = random(21).standard_normal(72) + np.repeat(random(22).standard_normal(6), 12)
    yield (
        "mixed",
        [call("fit_mixed_model", frame, ("b", "a", "c"), slopes=slopes) for slopes in (True, False)],
    )
    layers, noise = np.arange(12.0), random(23).standard_normal((39, 12)) * 0.02
    for unit, n in (("subjects", 7), ("runs", 5)):
        curves = random(24, n).standard_normal((n, 12)) * 0.02 + 0.1 - 0.003 * (layers - 7) ** 2
        yield f"curve {unit}", call("analyse_layer_curve", curves, layers, "m", unit, random(25), noise, 500)
        for how in ("range", "quadratic"):
            for by in ("signs", "labels"):
                test = call("flat_test", curves, layers, unit, random(26), 300, how, by)
                yield f"curve {unit} {how} {by}", test
            yield f"curve {unit} {how}", call("profile_test", curves.mean(axis=0), noise, how)


def ceilings() -> Items:
    """Yield noise ceilings between subjects and from repeats, bootstrap intervals, and false-discovery rates."""
    piece = np.repeat(list(RUNS), 30)
    shared = random(27).standard_normal((len(piece), N_TARGETS)) * np.linspace(0, 1, N_TARGETS)
    score = random(28).standard_normal(N_TARGETS) * 0.3
    for n, kinds in ((3, ("perfect", "others")), (7, ("perfect", "others", "average"))):
        values = shared + random(29, n).standard_normal((n, *shared.shape))
        values[:, :, 1] = np.nan
        reader = functools.partial(lambda values, part: values[:, :, part], values)
        between = call(
            "inter_subject_ceiling", reader, n, N_TARGETS, piece, random(30), kinds, 200, 20, REGIONS
        )
        yield f"{n} subjects", [(c, c.squared(), call("normalise", score, c, "r")) for c in between.values()]
    for n, block in ((2, 10), (5, 6)):
        repeats = shared + random(31, n).standard_normal((n, *shared.shape))
        yield f"{n} repeats", call("estimate_signal_power", repeats, random(32), block, 200, REGIONS)
    for kind in ("stretched", "percentile", "bca", "t"):
        values = random(33).standard_normal((9, 5)) ** 2
        yield f"bootstrap {kind}", call("bootstrap", values, random(34), 700, kind, 1.2)
    p = np.append(random(35).uniform(0, 1, 50) ** 3, np.nan)
    yield "false discovery", [call("adjust_p", p), call("false_discovery", p, 0.1)]


# --- Whole studies, and the files they write.


def planted_corpus(n_subjects: int) -> Any:
    """Return planted recordings as a corpus, whose run-4 was heard several times."""
    subjects = [f"{i + 1:02d}" for i in range(n_subjects)]

    def recording(subject: str, run: str) -> Any:
        return recordings(subject, False)[list(RUNS).index(run)]

    def repeats(subject: str) -> np.ndarray:
        mean = recording(subject, "run-4").values
        noise = random(41, *subject.encode()).standard_normal((3, *mean.shape))
        return np.asarray(mean + noise - noise.mean(axis=0), dtype=np.float32)

    reads = {"recording": recording, "repeats": repeats, "story": story, "runs": lambda subject: list(RUNS)}
    return types.SimpleNamespace(subjects=lambda: subjects, test_story="run-4", **reads)


def planted_spaces(models: Sequence[str], controls: Sequence[str]) -> Any:
    """Return seven layers per model, as if models had read the story, and controls."""
    layers, sentences = {}, story().sentences
    for m, model in enumerate(models):
        for k in range(7):
            noise = random(42, m, k).standard_normal((len(story().ids), 20)) * (0.3 + abs(k - 4) + 3 * m)
            noise[:, :12] += features()["narrow"].values
            layers[f"{model}/layer-{k:02d}"] = table(f"{model}/layer-{k:02d}", noise)
    counted = table("word_count", sentences.n_words[:, None], "sum", "sentences")
    measures = {"duration": features()["duration"], "word_count": counted}
    tables = find("FeatureTables")({name: measures[name] for name in controls}, [layers])
    of_model = {model: tuple(name for name in layers if name.startswith(f"{model}/")) for model in models}
    units = {model: np.arange(len(sentences.ids)) % 9 > 0 for model in models}
    return find("FeatureSpaces")(tables, of_model, tuple(controls), {}, {}, units)


STUDIES: dict[str, tuple[int, list[str], dict[str, Any]]] = {
    "sentences": (5, ["a", "a-untrained-0"], {
        "protocol": {"pca": 8, "penalties": [0.1, 10.0, 1000.0], "n_nulls": 25, "null_layers": "all"},
        "recording": {"clock": "trust", "average": True}, "features": {"controls": ["duration", "word_count"]},
        "partition": {"on": True, "n_gammas": 4, "region": "language"}, "fit": {"predictions": True, "weights": True},
    }),
    "scans": (2, ["a"], {
        "protocol": {"pca": 10, "n_nulls": 9, "null": "phase", "confounds": ["duration"]}, "fit": {"regime": "axes"},
        "design": {"rows": "scans", "response": "fir"}, "features": {"controls": ["duration"]},
    }),
    "recipe": (1, ["a"], {"protocol": {"preset": "replication-2025"}, "features": {"controls": []}}),
}  # fmt: skip
"""Whole studies: subjects, models, and settings beside the usual ones."""


def studies(write: str = "write_tables") -> Items:
    """Yield whole studies of planted models: sentences, scans, and the published recipe."""
    for name, (n_subjects, models, settings) in STUDIES.items():
        with tempfile.TemporaryDirectory() as folder:
            usual = {"output": folder, "seed": 5, "jobs": 1, "recording": {"clock": "report"}}
            usual["inference"], usual["compare"] = {"n_resamples": 200}, {"region": "language"}
            seeds = {model: 0 if "untrained" in model else None for model in models}
            usual["models"] = [
                {"name": m, "source": "a", "untrained_seed": seed} for m, seed in seeds.items()
            ]
            study = call("make_study", usual | settings, name, Path(folder))
            spaces = planted_spaces(models, settings["features"]["controls"])
            results = call("run_study", study, corpus=planted_corpus(n_subjects), spaces=spaces)
            call(write, results, Path(folder))
            yield f"{name} results", results
            yield from ((f"{name} {part}", value) for part, value in read_folder(Path(folder)))


def reports() -> Items:
    """Yield the same studies with their reports."""
    yield from studies("write_results")


def demo() -> Items:
    """Yield the files of the demo."""
    with tempfile.TemporaryDirectory() as folder:
        call("run_demo", Path(folder), lambda what, done, total: None)
        yield from read_folder(Path(folder) / "results")
        cache = Path(os.environ["LANGCORTEX_CACHE"]) / "features"
        yield "names of cached features", np.array(sorted(path.name for path in cache.iterdir()))


def alice() -> Items:
    """Yield the files of the study in ``examples/alice``, where its data are present."""
    shared = os.environ.get("LANGCORTEX_SHARED_DATA") or ROOT.parent / "shared" / "data"
    data, study = Path(shared) / "alice", ROOT / "examples" / "alice" / "study.toml"
    if not data.is_dir():
        print(f"alice is skipped: no folder {data} (set LANGCORTEX_SHARED_DATA).", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        settings = call("read_study", study, [f"data.path={data}", f"output={folder}", "jobs=1"])
        call("write_results", call("run_study", settings), Path(folder))
        yield from read_folder(Path(folder))


def read_folder(folder: Path) -> Items:
    """Yield the tables and maps of a folder of results, and what is kept in it, by the names of its folders."""
    parts: dict[str, dict[str, Any]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        first, *inner = path.relative_to(folder).parts
        parts.setdefault(first, {})["/".join(inner)] = read_file(path)
    if "kept" in parts:
        yield "names in kept", np.array(sorted({name.split("/")[0] for name in parts["kept"]}))
    yield from parts.items()


def read_file(path: Path) -> Any:
    """Return what must not change in a file: voxels, arrays, columns, and the numbers of reports and summaries."""
    if path.name.endswith((".nii.gz", ".gii")):
        import nibabel

        image = nibabel.load(path)
        return [np.asanyarray(image.dataobj), image.affine] if hasattr(image, "dataobj") else image.agg_data()
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".tsv":
        return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)
    if path.suffix == ".json":
        values = json.loads(path.read_text(encoding="utf-8"))
        return {key: value for key, value in values.items() if key != "versions"}
    if path.suffix == ".html":
        tables = re.findall("<table.*?</table>", path.read_text(encoding="utf-8"), re.DOTALL)
        text = html.unescape(re.sub("<[^>]*>", " ", " ".join(tables))).replace("−", "-")
        words = re.findall(r"-?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", text)
        return np.array([float(word.replace(",", "")) for word in words if word.count(".") < 2])
    return None


# --- From values to arrays on disk.


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield the numbers and ids in a value, each with a name."""
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        yield name, np.asarray(value)
    elif isinstance(value, np.ndarray):
        plain = value.astype(str) if value.dtype.kind == "O" else value
        if plain.dtype.kind != "U" or not np.char.count(plain, " ").any():
            yield name, plain
    elif isinstance(value, pd.DataFrame):
        yield from flatten({column: value[column].to_numpy() for column in value}, name)
    elif dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        first = {field: FIRST.get(field, field) for field in fields}
        named = {field if first[field] in fields else first[field]: getattr(value, field) for field in fields}
        yield from flatten(named, name)
    elif isinstance(value, Mapping):
        for key in value:
            yield from flatten(value[key], f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from flatten(part, f"{name}/{i}")


def main(tree: Path, folder: Path, names: Sequence[str]) -> int:
    """Write the items of some functions; return 1 where one of them failed."""
    home = Path(str(importlib.import_module("langcortex").__file__)).resolve()
    if tree.resolve() not in home.parents:
        raise SystemExit(f"langcortex is loaded from {home}, not from {tree}.")
    failed = 0
    for name in names:
        (folder / name).mkdir(parents=True)
        try:
            for title, value in globals()[name]():
                parts: dict[str, Any] = dict(flatten(value))
                if parts:
                    np.savez(folder / name / f"{title.replace('/', '|')}.npz", **parts)
        except Exception:
            traceback.print_exc()
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
