"""The published recipe gives what it was published to give: the same numbers, and its peak on pure noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, stats

from langcortex import Protocol, read_study, run_study
from langcortex.design.design import Design
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import REPLICATION_LEAKS
from langcortex.encoding.replication import recipe as replication
from langcortex.encoding.replication.recipe import replicate_run, select_units
from langcortex.encoding.scores import score
from langcortex.errors import FitError
from langcortex.stimulus.story import read_story
from langcortex.study.corpus import open_corpus
from langcortex.study.run import write_results
from langcortex.study.subject import read_subject

MakeDesign = Callable[..., Design]


# a second implementation, from the description of the recipe and nothing else


def windows(z: np.ndarray, onset: np.ndarray, duration: np.ndarray, tr: float, delay: float) -> np.ndarray:
    rows = []
    for t, d in zip(onset, duration, strict=True):
        scans = [i for i in range(int((t + delay) / tr), int((t + d + delay) / tr) + 1) if i < len(z)]
        if not scans:
            break
        rows.append(np.mean([z[i] for i in scans], axis=0))
    return np.array(rows)


def components(train: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    mean = train.mean(axis=0)
    return (rows - mean) @ np.linalg.svd(train - mean, full_matrices=False)[2][:k].T


def without(y: np.ndarray, length: np.ndarray) -> np.ndarray:
    design = np.stack([np.ones(len(length)), length], axis=1)
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]


def ridge(x: np.ndarray, y: np.ndarray, alpha: float, new: np.ndarray) -> np.ndarray:
    c = x - x.mean(axis=0)
    w = np.linalg.solve(c.T @ c + alpha * np.eye(c.shape[1]), c.T @ (y - y.mean(axis=0)))
    return (new - x.mean(axis=0)) @ w + y.mean(axis=0)


def left_one_out(x: np.ndarray, y: np.ndarray, alpha: float) -> float:
    """Give the mean squared error over rows and voxels, each row predicted from all others."""
    errors = []
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        errors.append(y[i] - ridge(x[rest], y[rest], alpha, x[i : i + 1])[0])
    return float(np.square(errors).mean())


def pearson(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.array([stats.pearsonr(a, b).statistic for a, b in zip(y.T, p.T, strict=True)])


def reference(
    features: np.ndarray, values: np.ndarray, onset: np.ndarray, duration: np.ndarray, tr: float
) -> tuple[np.ndarray, float, set[int]]:
    from sklearn.model_selection import KFold

    z = (values - values.mean(axis=0)) / values.std(axis=0)
    middle = features.shape[1] // 2
    best, delay = -np.inf, 0.0
    for d in (4.0, 6.0, 8.0, 10.0):
        y = windows(z, onset, duration, tr, d)
        x = features[: len(y), middle]
        cut = int(len(y) * 0.8)
        first, last = components(x[:cut], x[:cut], 10), components(x[:cut], x[cut:], 10)
        result = np.sort(pearson(y[cut:], ridge(first, y[:cut], 1000.0, last)))[-100:].mean()
        if result > best:
            best, delay = result, d
    y = windows(z, onset, duration, tr, delay)
    n = len(y)
    length = duration[:n]
    x = without(components(features[:n, middle], features[:n, middle], 10), length)
    clean = without(y, length)
    voxels = np.argsort(pearson(clean, ridge(x, clean, 1000.0, x)))[-300:]
    r = []
    for layer in range(features.shape[1]):
        folds = []
        for train, test in KFold(5, shuffle=True, random_state=42).split(y):
            xs = features[:n, layer]
            a = without(components(xs[train], xs[train], 15), length[train])
            b = without(components(xs[train], xs[test], 15), length[test])
            ya, yb = without(y[train][:, voxels], length[train]), without(y[test][:, voxels], length[test])
            alpha = min((100.0, 1000.0, 10000.0), key=lambda alpha: left_one_out(a, ya, alpha))
            folds.append(pearson(yb, ridge(a, ya, alpha, b)).mean())
        r.append(np.mean(folds))
    return np.array(r), delay, set(voxels.tolist())


def noise_run(
    rng: np.random.Generator, n_units: int, n_voxels: int, smooth: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw windows of speech and a brain that does not listen: (values, onset, duration, tr = 2)."""
    duration = rng.uniform(0.8, 5.0, n_units)
    onset = 3.0 + np.concatenate([[0], np.cumsum(duration + rng.uniform(0.2, 0.8, n_units))[:-1]])
    values = rng.standard_normal((int(onset[-1] / 2) + 12, n_voxels))
    if smooth:
        values = ndimage.gaussian_filter1d(values, smooth / 2.0, axis=0)
    return 100 + 7 * values, onset, duration, np.ones(n_units, dtype=bool)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_numbers_are_those_of_a_second_implementation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, onset, duration, unit_mask = noise_run(rng, 42, 400, smooth=3.0)
    features = rng.standard_normal((42, 3, 24)) + 2.0
    result = replicate_run(features, values, onset, duration, 2.0, unit_mask, False, seed=5)
    r, delay, voxels = reference(features, values, onset, duration, 2.0)
    np.testing.assert_allclose(result.r, r, atol=1e-10)
    assert result.delay == delay
    assert set(result.voxels.tolist()) == voxels
    assert result.n_rows == 42


def test_units_without_scans_end_the_run(rng: np.random.Generator) -> None:
    values, onset, duration, unit_mask = noise_run(rng, 42, 320)
    short = values[: int(onset[30] / 2)]
    result = replicate_run(rng.standard_normal((42, 2, 20)), short, onset, duration, 2.0, unit_mask, False, 0)
    expected = int(np.sum((onset + result.delay) // 2 < len(short)))
    assert result.n_rows == expected < 31


def test_voxels_without_signal_are_zero_and_never_chosen(rng: np.random.Generator) -> None:
    values, onset, duration, unit_mask = noise_run(rng, 42, 340)
    features = rng.standard_normal((42, 2, 20))
    plain = replicate_run(features, values, onset, duration, 2.0, unit_mask, False, 0)
    dead = np.concatenate([values, np.full((len(values), 5), 7.0), np.full((len(values), 5), np.nan)], axis=1)
    with_dead = replicate_run(features, dead, onset, duration, 2.0, unit_mask, False, 0)
    np.testing.assert_allclose(with_dead.r, plain.r)
    assert with_dead.voxels.max() < 340


def test_a_run_of_too_few_units_is_one_sentence(rng: np.random.Generator) -> None:
    values, onset, duration, unit_mask = noise_run(rng, 19, 50)
    with pytest.raises(FitError, match="needs at least 20 units"):
        replicate_run(rng.standard_normal((19, 2, 20)), values, onset, duration, 2.0, unit_mask, False, 0)


# what noise gets from it


def slow(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw features that drift with the topic."""
    x = ndimage.gaussian_filter1d(rng.standard_normal(shape), 2.0, axis=0)
    return x / x.std()


def test_noise_gets_a_score_from_the_recipe_and_none_from_the_rigorous_protocol(
    arrays_design: MakeDesign, autocorrelated: Callable[..., np.ndarray]
) -> None:
    recipe, rigorous = [], []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        runs, xs, ys = [], [], []
        for k in range(3):
            values, onset, duration, unit_mask = noise_run(rng, 100, 1200, smooth=3.0)
            x = slow(rng, (100, 1, 20))
            recipe.append(float(replicate_run(x, values, onset, duration, 2.0, unit_mask, False, 0).r[0]))
            y = windows((values - values.mean(axis=0)) / values.std(axis=0), onset, duration, 2.0, 6.0)
            xs.append(x[:, 0])
            ys.append(y[:, :300].astype(np.float32))
            runs.append(np.full(100, f"run-{k}"))
        design = arrays_design({"x": np.concatenate(xs)}, np.concatenate(ys), np.concatenate(runs))
        rigorous.append(
            float(score(fit(design, "x", Protocol(pca=15, penalties=(1.0, 100.0, 10000.0)))).r.mean())
        )
    assert min(recipe) > 0.2
    assert abs(np.mean(rigorous)) < 0.03


def test_noise_peaks_at_the_layer_that_picked_the_voxels(arrays_design: MakeDesign) -> None:
    """Layers that resemble their neighbours and nothing else: an inverted U, made by the recipe alone."""
    n_layers, middle = 13, 6
    profiles, honest = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        layers = [rng.standard_normal((110, 20))]
        for _ in range(n_layers - 1):
            layers.append(0.85 * layers[-1] + np.sqrt(1 - 0.85**2) * rng.standard_normal((110, 20)))
        values, onset, duration, unit_mask = noise_run(rng, 110, 3000)
        result = replicate_run(np.stack(layers, axis=1), values, onset, duration, 2.0, unit_mask, False, 0)
        profiles.append(result.r)
        y = windows((values - values.mean(axis=0)) / values.std(axis=0), onset, duration, 2.0, 6.0)
        run = np.repeat(["a", "b", "c"], [37, 37, 36])
        spaces = {str(i): x for i, x in enumerate(layers)}
        design = arrays_design(spaces, y[:, :200].astype(np.float32), run)
        protocol = Protocol(pca=15, penalties=(1.0, 100.0, 10000.0))
        honest.append([float(score(fit(design, name, protocol)).r.mean()) for name in spaces])
    curve = np.mean(profiles, axis=0)
    assert curve.argmax() == middle
    assert curve[middle] > 0.1
    assert curve[middle] > curve[middle - 2] > curve[0]
    assert curve[middle] > curve[middle + 2] > curve[-1]
    assert np.abs([curve[0], curve[-1]]).max() < curve[middle] / 2
    flat = np.mean(honest, axis=0)
    assert np.abs(flat).max() < 0.04


# which rows meet


def paired(
    monkeypatch: pytest.MonkeyPatch, unit_mask: np.ndarray, row_shift: bool
) -> tuple[list[int], list[int]]:
    """Say which units' features and which units' responses share a row: features and durations carry the number."""
    rng = np.random.default_rng(0)
    n = len(unit_mask)
    duration = 1.0 + np.arange(n) / 100
    onset = 3.0 * np.arange(n)
    features = rng.standard_normal((n, 2, 20))
    features[:, :, 0] = np.arange(n)[:, None]
    values = rng.standard_normal((int(3 * n / 2) + 10, 4))
    seen: dict[str, Any] = {}

    def look(x: np.ndarray, y: np.ndarray, length: np.ndarray, seed: int) -> float:
        seen.update(x=x, length=length, y=y)
        return 0.0

    monkeypatch.setattr(replication, "_cross_validate", look)
    result = replicate_run(features, values, onset, duration, 2.0, unit_mask, row_shift, 0)
    units = [round(100 * (d - 1)) for d in seen["length"][:, 0]]
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    truth = windows(z, onset[units], duration[units], 2.0, result.delay)
    np.testing.assert_allclose(seen["y"], truth[:, result.voxels])
    return seen["x"][:, 0].astype(int).tolist(), units


def test_rows_meet_by_unit_unless_the_published_shift_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units 2 and 5 were skipped: as published, unit 3 meets the response to unit 2, unit 6 that to unit 4."""
    unit_mask = np.ones(26, dtype=bool)
    unit_mask[[2, 5]] = False
    survivors = np.flatnonzero(unit_mask).tolist()
    assert paired(monkeypatch, unit_mask, row_shift=False) == (survivors, survivors)
    features, responses = paired(monkeypatch, unit_mask, row_shift=True)
    assert features == survivors == [0, 1, 3, 4, 6, *range(7, 26)]
    assert responses == list(range(24))


def test_nothing_skipped_nothing_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    unit_mask = np.ones(22, dtype=bool)
    assert paired(monkeypatch, unit_mask, True) == paired(monkeypatch, unit_mask, False)


# which units are kept


@pytest.mark.parametrize(
    ("text", "tokens", "selected"),
    [
        ("two words", ["two", "Ġwords"], True),
        ("two words", ["tw", "o", "Ġwo", "rds"], True),
        ("Two Words", ["▁Two", "▁Words"], True),
        ("one", ["one"], False),
        ("", [], False),
        ("well — yes", ["well", "ĠâĢĶ", "Ġyes"], False),  # an em dash does not spell itself in bytes
        ('na"ve boys sing', ["na", "\u00c3\u00af", "ve", "Ġboys", "Ġsing"], False),
        (
            "a na\u00efve",
            ["a", "Ġna", "\u00c3\u00af", "ve"],
            True,
        ),  # nobody checks how the last word is spelt
        ("three words here", ["three", "Ġwords"], False),
        ("two words", ["two", "Ġwords", "!"], False),  # something after the last word
        ("twowords apart", ["two", "words", "Ġapart"], True),
        ("to together", ["to", "Ġto", "gether"], True),
    ],
)
def test_units_are_kept_whose_tokens_spell_their_words(text: str, tokens: list[str], selected: bool) -> None:
    assert select_units([text], [tokens]).tolist() == [selected]


def test_a_byte_level_tokenizer_spells_plain_words_and_no_dashes(llama_folder: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(llama_folder)
    texts = ["the cat sat", "nobody knew why", "the cat — sat", "the naïve cat", "cat"]
    tokens = [
        tokenizer.convert_ids_to_tokens(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts
    ]
    assert select_units(texts, tokens).tolist() == [True, True, False, False, False]


def test_of_the_little_princes_2103_units_seventy_have_one_word(shared_data: Path) -> None:
    folder = shared_data / "lpp" / "annotation" / "EN"
    files = {f"section{i}": folder / f"lppEN_section{i}.TextGrid" for i in range(1, 10)}
    units = read_story(files, sentences="pauses").sentences
    texts = units.text.tolist()
    assert len(texts) == 2103
    unit_mask = select_units(texts, [text.lower().split() for text in texts])
    assert (int(unit_mask.sum()), int((~unit_mask).sum())) == (2033, 70)
    np.testing.assert_array_equal(~unit_mask, units.n_words == 1)


# through a study


@pytest.fixture(scope="module")
def study_file(planted_corpus: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = planted_corpus(tmp_path_factory.mktemp("replication"), ("01",), runs=2)
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition("[protocol]")
    path.write_text(
        head.replace("[story]", '[story]\nsentences = "column"') + '[protocol]\npreset = "replication-2025"\n[compare]' + rest.partition("[compare]")[2],
        encoding="utf-8",
    )  # fmt: skip
    return path


def test_a_study_applies_the_recipe_to_every_run_by_itself(study_file: Path, tmp_path: Path) -> None:
    study = read_study(study_file, [f"output={tmp_path}", "recording.stimulus_onset=1.5"])
    results = run_study(study)
    corpus = open_corpus(study)
    sentences = corpus.story().sentences
    from langcortex import extract, load_model

    layers = extract(corpus.story(), load_model(study.models[0].source, "llama"))
    tables = [layers[name].to_sentences(corpus.story()).values for name in layers.names]
    scores = results.scores
    assert set(scores.metric) == {"r"}
    assert set(scores.region) == {"top 300 voxels"} == {results.region}
    for run in ("run-1", "run-2"):
        raw = pd.read_csv(study_file.parent / f"sub-01_{run}.tsv", sep="\t").to_numpy()
        rows = sentences.run == run
        r, delay, _ = reference(
            np.stack([t[rows] for t in tables], axis=1).astype(float), raw, sentences.onset[rows] + 1.5, sentences.duration[rows], 2.0
        )  # fmt: skip
        told = scores[(scores.model == "llama") & (scores.run == run)].sort_values("layer").value
        np.testing.assert_allclose(told, r, atol=1e-4)
        assert results.delays["01, llama"][["run-1", "run-2"].index(run)] == delay
    pooled = scores[(scores.model == "llama") & (scores.run == "all")].set_index("layer").value
    by_run = scores[(scores.model == "llama") & (scores.run != "all")].groupby("layer").value.mean()
    np.testing.assert_allclose(pooled.sort_index(), by_run)


def test_the_report_of_the_recipe_begins_with_its_leaks(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langcortex.report.html.draw_pictures", lambda results: [])
    results = run_study(read_study(study_file, [f"output={tmp_path}", "protocol.row_shift=true"]))
    assert len(results.protocol.leaks) == len(REPLICATION_LEAKS) + 1
    assert not results.maps
    assert not results.p
    page = write_results(results, tmp_path).read_text(encoding="utf-8")
    banner = page[page.index('class="leak"') : page.index("<h1>")]
    assert "say nothing about the brain" in banner
    assert all(leak.split(",")[0] in banner for leak in REPLICATION_LEAKS)
    assert "leaks" in (tmp_path / "summary.json").read_text(encoding="utf-8")


def test_a_second_run_of_the_recipe_computes_nothing(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = read_study(study_file, [f"output={tmp_path}"])
    first = run_study(study)
    monkeypatch.setattr("langcortex.study.replicate.replicate_run", None)
    pd.testing.assert_frame_equal(first.scores, run_study(study).scores)


def test_cleaning_and_masks_are_left_to_the_recipe(study_file: Path) -> None:
    """It scales whole runs itself and knows no mask: the recordings come as they are."""
    (recording, _) = read_subject(open_corpus(read_study(study_file)), "01")
    raw = pd.read_csv(study_file.parent / "sub-01_run-1.tsv", sep="\t").to_numpy()
    np.testing.assert_allclose(recording.values, raw, rtol=1e-5)
