"""Null calibration: noise gets nothing from a rigorous study, much from the published recipe, and both are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from langcortex.audit import Calibration, audit_study, calibrate
from langcortex.audit.null_corpus import NullCorpus
from langcortex.audit.null_recordings import randomise_phases, simulate_autoregressive
from langcortex.brain.recording import Recording, Responses
from langcortex.brain.space import Space
from langcortex.encoding.replication.recipe import replicate_run
from langcortex.errors import RecordingError, SettingsError
from langcortex.simulation.planted import Plant
from langcortex.study.corpus import open_corpus
from langcortex.study.run import run_study, write_results
from langcortex.study.settings import Study
from langcortex.study.settings_file import read_study

Corpus = Callable[..., Path]
QUICK = (
    "features.layers=[1,2]",
    "compare.region=brain",
    "protocol.inner=2",
    "protocol.penalties=[10.0,1000.0]",
)


def one_model(path: Path, *changes: str) -> Study:
    study = read_study(path, [*QUICK, *changes])
    return study.model_copy(update={"models": study.models[:1]})


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def strong(planted_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plant a brain that follows the model closely."""
    return planted_corpus(tmp_path_factory.mktemp("strong"), ("01", "02"), what=Plant(signal=0.7))


@pytest.fixture(scope="module")
def recipe(planted_corpus: Corpus, llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a study by the published recipe, with a model whose eleven layers are of one size and drift apart."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("recipe")
    torch.manual_seed(6)
    config = transformers.OPTConfig(
        vocab_size=340, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=10, num_attention_heads=4,
        max_position_embeddings=64, do_layer_norm_before=False, init_std=0.1, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    transformers.OPTForCausalLM(config).eval().save_pretrained(folder / "opt")
    transformers.AutoTokenizer.from_pretrained(llama_folder).save_pretrained(folder / "opt")
    path = planted_corpus(
        folder, ("01",), runs=2, what=Plant(signal=0.0, autocorrelation=0.7), n_targets=1500
    )
    path.write_text(
        f'[story]\nfiles = "story/{{run}}.tsv"\nsentences = "column"\n[recording]\nfiles = "sub-{{subject}}_{{run}}.tsv"\ntr = 2.0\n'
        f'[[models]]\nname = "opt"\nsource = "{folder / "opt"}"\n[protocol]\npreset = "replication-2025"\n',
        encoding="utf-8",
    )
    return path


# what noise gets


def test_a_rigorous_study_finds_nothing_in_a_brain_whose_story_was_taken_away(
    strong: Path, tmp_path: Path
) -> None:
    study = one_model(strong, "protocol.n_nulls=19", "features.layers=[2]", 'recording.subjects=["01"]')
    true = run_study(study.model_copy(update={"output": str(tmp_path)}))
    assert true.curve("llama").mean().max() > 0.15
    assert (true.p["llama"] <= 0.05).mean() > 0.3
    found = calibrate(study, 4, "phase")
    assert abs(found.r_null_mean) < 0.05
    assert found.false_positive_rate is not None
    assert found.false_positive_rate < 0.25
    assert list(found.r_null_by_layer["llama"]) == [2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["phase", "ar", "shift"])
def test_one_target_in_twenty_is_a_false_positive(planted_corpus: Corpus, tmp_path: Path, kind: str) -> None:
    """Thirty brains of noise: mean |r| below .01, and 5 % inside the interval over runs."""
    path = planted_corpus(tmp_path, ("01",), what=Plant(signal=0.0), n_targets=100)
    found = calibrate(one_model(path, "protocol.n_nulls=99"), 30, kind, seed=1)
    assert abs(found.r_null_mean) < 0.01
    assert found.false_positive_rate is not None
    assert found.false_positive_interval is not None
    low, high = found.false_positive_interval
    assert low <= 0.055
    assert high >= 0.045
    assert found.false_positive_rate < 0.07


def test_the_published_recipe_gets_much_from_noise_and_peaks_where_it_picked(recipe: Path) -> None:
    study = read_study(recipe)
    found = calibrate(study, 2, "ar")
    assert 0.15 < found.r_null_mean < 0.75
    assert found.peak_layer == {"opt": 5}  # of layers 0 to 10
    curve = found.r_null_by_layer["opt"]
    assert curve[5] > max(curve[0], curve[10]) + 0.02
    assert found.false_positive_rate is None
    assert found.region == "top 300 voxels"
    assert len(audit_study(study).leaks) == 4


def test_rigour_takes_the_peak_away(recipe: Path) -> None:
    """The same words, model and noise, with whole runs left out and every target scored."""
    rigorous = read_study(
        recipe, ["protocol={n_nulls=0, inner=2, penalties=[1.0,100.0]}", "features.controls=[]"]
    )
    found = calibrate(rigorous, 2, "ar")
    assert abs(found.r_null_mean) < 0.03
    assert np.ptp(list(found.r_null_by_layer["opt"].values())) < 0.04
    assert audit_study(rigorous).leaks == ()


def test_a_walk_through_layers_peaks_at_the_layer_that_picked_the_voxels(
    autocorrelated: Callable[..., np.ndarray],
) -> None:
    """Random features whose layers resemble their neighbours, noise of either kind: the middle wins, the ends do not."""
    rng = np.random.default_rng(7)
    n, layers = 120, 11
    features = np.empty((n, layers, 60))
    features[:, 0] = autocorrelated(rng, n, 60, 0.6)
    for k in range(1, layers):
        features[:, k] = 0.8 * features[:, k - 1] + 0.6 * autocorrelated(rng, n, 60, 0.6)
    space = Space("columns", np.arange(3000).astype(str))
    brain = Recording(
        autocorrelated(rng, 260, 3000, 0.6).astype(np.float32), np.arange(260) * 2.0, 2.0, "a", "01", space
    )
    for make in (randomise_phases, simulate_autoregressive):
        curve = replicate_run(
            features, make(brain, rng).values, np.arange(n) * 4.0, np.full(n, 3.5), 2.0, np.ones(n, dtype=bool), False, 0
        ).r  # fmt: skip
        assert int(np.argmax(curve)) == 5
        assert curve[5] > max(curve[0], curve[-1]) + 0.05


# what it is


def test_nothing_is_written_where_the_study_writes(strong: Path) -> None:
    study = one_model(strong, "protocol.n_nulls=0", "models=[]")
    before = files_of(strong.parent)
    calibrate(study, 1)
    assert files_of(strong.parent) == before


def test_one_seed_gives_one_answer(strong: Path) -> None:
    study = one_model(strong, "models=[]", "protocol.n_nulls=0").model_copy(update={"models": []})
    first, again, other = (calibrate(study, 2, "phase", seed) for seed in (0, 0, 1))
    assert first.as_json() == again.as_json()
    assert first.r_null_mean != other.r_null_mean
    assert list(first.reported) == ["duration"]  # controls, where there is no model
    assert len(set(first.reported["duration"].tolist())) == 2


def test_every_run_and_subject_gets_noise_of_its_own_whatever_else_is_read(strong: Path) -> None:
    corpus = open_corpus(read_study(strong))
    make = lambda draw: NullCorpus(corpus, "phase", (0, draw), None, {}, [])  # noqa: E731
    alone = make(0).recording("02", "run-3").values
    full = make(0)
    every = {(s, r): full.recording(s, r).values for s in full.subjects() for r in full.runs(s)}
    np.testing.assert_array_equal(every["02", "run-3"], alone)
    assert not np.allclose(make(1).recording("02", "run-3").values, alone)
    assert len({v[0, 0].item() for v in every.values()}) == len(every)
    assert make(0).reading is corpus.reading  # type: ignore[attr-defined]  # of a corpus on disk
    assert not hasattr(make(0), "story_of")


def test_recordings_are_read_once_where_they_are_small(strong: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langcortex.datasets import corpus

    read, true = [], corpus.read_recording

    def count(path: Path, *rest: object, **options: object) -> Recording:
        read.append(path)
        return true(path, *rest, **options)  # type: ignore[arg-type]  # passed on

    study = one_model(strong, "protocol.n_nulls=0").model_copy(update={"models": []})
    monkeypatch.setattr(corpus, "read_recording", count)
    calibrate(study, 3)
    assert len(read) == 8
    monkeypatch.setattr("langcortex.audit.null_corpus.IN_MEMORY", 0)
    calibrate(study, 2)
    assert len(read) == 8 + 1 + 16  # one is tried before a model reads


def test_a_model_is_loaded_once_whatever_the_number_of_draws(
    strong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langcortex.study import feature_spaces as reading

    loaded, true = [], reading.load_model

    def count(*given: object, **options: object) -> object:
        loaded.append(given)
        return true(*given, **options)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(reading, "load_model", count)
    study = one_model(strong, "protocol.n_nulls=0", "features.layers=[2]", 'recording.subjects=["01"]')
    found = calibrate(study, 3)
    assert len(loaded) == 1
    assert len(set(found.reported["llama"].tolist())) == 3


def test_what_cannot_be_made_is_said_before_a_model_reads(
    strong: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rest.npy", np.random.default_rng(0).standard_normal((20, 24)))
    monkeypatch.setattr("langcortex.study.feature_spaces.load_model", None)
    with pytest.raises(RecordingError, match="Give a longer recording of rest"):
        calibrate(one_model(strong), 1, "rest", rest_path=tmp_path / "rest.npy")


def test_real_rest_stands_in_for_the_runs(
    strong: Path, tmp_path: Path, autocorrelated: Callable[..., np.ndarray]
) -> None:
    np.save(tmp_path / "rest.npy", autocorrelated(np.random.default_rng(0), 900, 30, 0.7))
    study = one_model(strong, "protocol.n_nulls=0").model_copy(update={"models": []})
    found = calibrate(study, 3, "rest", rest_path=tmp_path / "rest.npy")
    assert abs(found.r_null_mean) < 0.1
    assert found.kind == "rest"


def test_a_slipped_clock_does_not_stop_noise(strong: Path) -> None:
    """Noise comes at no time: the check of the clock has nothing to say about it."""
    study = one_model(strong, "recording.clock=refuse", "protocol.n_nulls=0").model_copy(
        update={"models": []}
    )
    assert calibrate(study, 1).n == 1


def test_responses_without_scans_are_refused(tmp_path: Path) -> None:
    space = Space("columns", np.array(["a"]))
    answers = Responses(np.zeros((1, 1), np.float32), np.array(["x"]), "run", "01", space)

    class Answers:
        def recording(self, subject: str, run: str) -> Responses:
            return answers

    silent = NullCorpus(Answers(), "phase", (0, 0), None, {}, [])  # type: ignore[arg-type]  # enough of a corpus
    with pytest.raises(SettingsError, match="has one response per sentence"):
        silent.recording("01", "run")


def test_numbers_are_summed_up() -> None:
    found = Calibration(
        "ar", 4, 0, "brain", {"m": np.array([0.1, 0.2, 0.3, 0.2])}, {"m": np.array([0, 8])},
        {"m": np.array([[0.1, 0.2], [0.3, 0.2], [0.0, 0.5], [0.0, 0.1]])}, {"m": np.array([0.0, 0.1, 0.05, 0.05])}, {"m": 0.4},
        {"m": np.array([True, False, False, False])}, 99,
    )  # fmt: skip
    assert found.r_null_mean == pytest.approx(0.2)
    assert found.r_null_q95 == pytest.approx(0.285)
    assert found.false_positive_rate == pytest.approx(0.05)
    assert found.false_positive_interval == pytest.approx((0.0, 0.05 + 3.182446 * 0.0408248 / 2))
    assert found.r_null_by_layer == {"m": {0: pytest.approx(0.1), 8: pytest.approx(0.25)}}
    assert found.peak_layer == {"m": 8}
    assert found.peak_share == {"m": {0: 0.25, 8: 0.75}}
    assert found.family_wise_rate == {"m": 0.25}
    assert found.family_wise_interval == {
        "m": (pytest.approx(0.0063, abs=1e-4), pytest.approx(0.8059, abs=1e-4))
    }
    told = found.as_json()
    assert set(told["units"]) == set(told) - {"kind", "seed", "region", "units"}
    assert all(
        "4 draws" in told["units"][name] for name in ("r_null_mean", "false_positive_rate", "r_null_by_layer")
    )
    assert (told["n"], told["seed"], told["n_nulls"]) == (4, 0, 99)
    lines = "\n".join(found.as_lines())
    assert "in 25.0% of runs (95 % interval 0.6% to 80.6%) some target" in lines
    assert "noise gets r = 0.2000; claimed: 0.4000" in lines
    assert (
        "peaks at layer 8 (r = 0.2500; lowest 0.1000), which is highest in 75% of runs; by chance 50%"
        in lines
    )
    assert "5.0% of targets have p ≤ .05" in lines


def test_a_calibration_of_no_runs_or_an_unknown_kind_is_refused(strong: Path, tmp_path: Path) -> None:
    study = one_model(strong)
    with pytest.raises(SettingsError, match="1 or more runs"):
        calibrate(study, 0)
    with pytest.raises(SettingsError, match="not 'pink'"):
        calibrate(study, 1, "pink")
    with pytest.raises(SettingsError, match="belong together"):
        calibrate(study, 1, "rest")


# the command line


def with_set(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def test_audit_json_is_one_object_with_every_number(
    call: Callable[..., tuple[int, str, str]], recipe: Path
) -> None:
    code, out, err = call("audit", recipe, "--null", 1, "--kind", "ar", "--json")
    assert code == 0
    told = json.loads(out)
    assert {f["level"] for f in told["findings"]} == {"leak", "risk", "note"}
    assert list(told["findings"][0]) == ["level", "what", "how_bad", "where", "mend"]
    assert told["r_null_mean"] > 0.1
    assert told["r_null_q95"] >= told["r_null_mean"]
    assert told["false_positive_rate"] is None
    assert list(told["r_null_by_layer"]["opt"]) == [str(k) for k in range(11)]
    assert isinstance(told["peak_layer"]["opt"], int)
    assert "Traceback" not in err


@pytest.mark.parametrize("kind", ["phase", "ar", "shift", "rest"])
def test_every_kind_prints_its_numbers_with_draws_and_seed(
    call: Callable[..., tuple[int, str, str]],
    strong: Path,
    tmp_path: Path,
    autocorrelated: Callable[..., np.ndarray],
    kind: str,
) -> None:
    changes = (*QUICK, "models=[]", "protocol.n_nulls=19", f"output={tmp_path}")
    np.save(tmp_path / "rest.npy", autocorrelated(np.random.default_rng(0), 900, 24, 0.7))
    given = ("--rest", tmp_path / "rest.npy") if kind == "rest" else ("--kind", kind)
    code, out, _ = call("audit", strong, "--null", 2, "--seed", 5, "--json", *given, *with_set(*changes))
    assert code == 0
    told = json.loads(out)
    assert (told["kind"], told["n"], told["seed"]) == (kind, 2, 5)
    assert abs(told["r_null_mean"]) < 0.15
    assert set(told["units"]) <= set(told)
    kept = json.loads((tmp_path / "null_calibration.json").read_text(encoding="utf-8"))
    assert kept.items() >= {key: value for key, value in told.items() if key != "findings"}.items()


def test_audit_prints_findings_and_what_noise_gets_beside_the_claim(
    call: Callable[..., tuple[int, str, str]], strong: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langcortex.report.html.draw_pictures", lambda results: [])
    changes = (*QUICK, "protocol.n_nulls=19", f"output={tmp_path}", "features.layers=[2]")
    results = run_study(read_study(strong, changes))
    write_results(results, tmp_path)
    claimed = results.scores.query(
        "metric == 'r_chosen' and run == 'all' and region == 'brain' and model == 'llama'"
    ).value.mean()
    code, out, err = call("audit", strong, "--null", 1, *with_set(*changes))
    assert code == 0
    assert "NOTE  There is no untrained twin" in out
    assert "No leak was found." in out
    assert f"claimed: {claimed:.4f}" in out
    assert "of targets have p ≤ .05" in out
    assert "Traceback" not in err


def test_audit_of_leaks_ends_with_0_and_of_a_study_that_cannot_be_read_with_2(
    call: Callable[..., tuple[int, str, str]], recipe: Path
) -> None:
    code, out, _ = call("audit", recipe)
    assert (code, out.count("LEAK  ")) == (0, 4)
    code, out, err = call("audit", recipe, *with_set("recording.files=gone_{subject}_{run}.tsv"))
    assert (code, out) == (2, "")
    assert err.startswith("error")
    code, _, err = call("audit", recipe, "--null", 1, "--kind", "pink")
    assert code == 2
    assert "of kind phase, ar, shift, rest; not 'pink'" in err
    for wrong in (
        ("--rest", "gone.npy", "--null", 1),
        ("--kind", "rest", "--null", 1),
        ("--rest", "gone.npy"),
    ):
        code, _, err = call("audit", recipe, *wrong)
        assert (code, len(err.strip().splitlines())) == (2, 1)
        assert err.strip().startswith("error")
