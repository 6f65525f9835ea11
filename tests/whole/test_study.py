"""Whole studies on planted brains: the truth and nothing else is found, every time the same, and never computed twice."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from langcortex.errors import FitError, RecordingError, SettingsError
from langcortex.features.models import extraction
from langcortex.results.results import Results
from langcortex.simulation.planted import Plant
from langcortex.study import fit as module
from langcortex.study.run import run_study
from langcortex.study.settings import Study
from langcortex.study.settings_file import read_study

Corpus = Callable[..., Path]
QUICK = ("models=[]", "protocol.n_nulls=0")  # controls only, no test: where models do not matter
LANGUAGE, AUDITORY, SILENT = (
    np.arange(24) < 8,
    (np.arange(24) >= 8) & (np.arange(24) < 11),
    np.arange(24) >= 11,
)


@pytest.fixture(scope="module")
def planted(planted_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the corpus that most tests read."""
    return planted_corpus(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def results(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_study(read_study(planted, [f"output={tmp_path_factory.mktemp('out')}"]))


def run(path: Path, out: Path, *changes: str) -> Results:
    return run_study(read_study(path, [f"output={out}", *changes], allow_code=True))


def values(results: Results, **chosen: object) -> pd.Series:
    rows = results.scores
    for column, value in chosen.items():
        rows = rows[rows[column].isna() if value is None else rows[column] == value]
    return rows.value


def same(a: Results, b: Results) -> None:
    """Compare every number of two results."""
    pd.testing.assert_frame_equal(a.scores, b.scores, check_exact=True)
    for name in ("maps", "chosen", "p", "p_corrected"):
        one, other = getattr(a, name), getattr(b, name)
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    assert a.delays == b.delays
    assert a.chosen_layers == b.chosen_layers
    for c, d in zip(a.comparisons, b.comparisons, strict=True):
        for field in dataclasses.fields(c):
            np.testing.assert_array_equal(getattr(c, field.name), getattr(d, field.name))


def no_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise AssertionError("computed again")

    choose = module.choose_delays
    monkeypatch.setattr(module, "fit_layers", fail)
    monkeypatch.setattr(
        module,
        "choose_delays",
        lambda d, *rest, **more: fail() if len(d.delays) > 1 else choose(d, *rest, **more),
    )
    monkeypatch.setattr(extraction, "_forward", fail)


# the truth is found, and nothing else


def test_the_planted_layer_and_delay_are_found(results: Results) -> None:
    assert results.best_layer("llama") == 2
    assert results.chosen_layers["llama"] == {"01": [2] * 4, "02": [2] * 4}
    assert results.delays == {"01": [6.0] * 4, "02": [6.0] * 4}


def test_the_planted_targets_are_found_and_silent_ones_are_not(results: Results) -> None:
    assert (results.p_corrected["llama"][LANGUAGE] <= 0.05).all()
    assert (results.p_corrected["llama"][~LANGUAGE] > 0.05).all()
    assert abs(np.mean(results.chosen["llama"][SILENT])) < 0.08
    assert results.chosen["llama"][LANGUAGE].min() > 0.2


def test_targets_that_follow_duration_are_the_controls_and_not_the_models(results: Results) -> None:
    """Duration is a confound: what it explains is no model's merit."""
    assert values(results, model="duration", region="auditory", run="all", metric="r").min() > 0.3
    assert values(results, model="llama", region="auditory", run="all", metric="r_chosen").max() < 0.15
    assert abs(values(results, model="duration", region="silent", run="all", metric="r").mean()) < 0.1


def test_the_model_that_was_planted_scores_above_the_other(results: Results) -> None:
    llama = values(results, model="llama", region="language", run="all", metric="r_chosen")
    gpt2 = values(results, model="gpt2", region="language", run="all", metric="r_chosen")
    assert llama.min() > gpt2.max() + 0.2


def test_another_planted_delay_is_found(planted_corpus: Corpus, tmp_path: Path) -> None:
    """An answer of 6 s that is always given would be no answer."""
    path = planted_corpus(tmp_path, ("01",), what=Plant(signal=0.6, delay=8.0))
    found = run(path, tmp_path / "out", "features.layers=[2]", "protocol.n_nulls=0")
    assert found.delays == {"01": [8.0] * 4}


def test_nothing_is_found_where_nothing_was_planted(planted_corpus: Corpus, tmp_path: Path) -> None:
    """Pure noise, 20 brains, each tested by itself: a discovery anywhere in about one of 20."""
    discoveries = []
    path = planted_corpus(tmp_path, tuple(f"{i:02d}" for i in range(20)), runs=3, what=Plant(signal=0.0))
    quick = ("features.layers=[1,2]", 'features.controls=["duration"]', "protocol.pca=10", "protocol.inner=2",
             "protocol.n_nulls=39", "protocol.penalties=[10.0,1000.0]")  # fmt: skip
    for i in range(20):
        study = read_study(
            path, [f"output={tmp_path / 'out'}", f'recording.subjects=["{i:02d}"]', f"seed={i}", *quick]
        )
        only = study.model_copy(update={"models": study.models[:1]})
        found = run_study(only)
        discoveries.append(int((found.p_corrected["llama"] <= 0.05).any()))
        assert abs(found.chosen["llama"].mean()) < 0.15
    assert sum(discoveries) <= 4


# the table


def test_every_score_stands_in_the_table_once(results: Results) -> None:
    runs = ["all", "run-1", "run-2", "run-3", "run-4"]
    spaces = {
        "llama": [0, 1, 2, 3],
        "gpt2": [0, 1, 2],
        "duration": [None],
    }
    regions = ["brain", "language", "auditory", "silent"]
    expected = {
        (subject, run, model, layer, region, metric)
        for subject, run, region in itertools.product(["01", "02"], runs, regions)
        for model, layers in spaces.items()
        for layer in layers
        for metric in ("r", "r2")
    } | {
        (subject, run, model, None, region, metric)
        for subject, run, region in itertools.product(["01", "02"], runs, regions)
        for model in ("llama", "gpt2")
        for metric in ("r_chosen", "r2_chosen")
    }
    told = [
        (s, r, m, None if pd.isna(layer) else int(layer), g, k)
        for s, r, m, layer, g, k, _ in results.scores.itertuples(index=False)
    ]
    assert len(told) == len(set(told))
    assert set(told) == expected
    assert results.scores.value.notna().all()


def test_regions_and_maps_agree(results: Results) -> None:
    for region, inside in (("brain", np.ones(24, dtype=bool)), ("language", LANGUAGE), ("silent", SILENT)):
        mean = values(results, model="llama", layer=2, region=region, run="all", metric="r").mean()
        assert results.maps["llama"][2][inside].mean() == pytest.approx(mean)
    chosen = values(results, model="llama", region="language", run="all", metric="r_chosen").mean()
    assert results.chosen["llama"][LANGUAGE].mean() == pytest.approx(chosen)


def test_what_was_read_is_counted(results: Results) -> None:
    assert results.counts["words"] == 1516
    assert results.counts["sentences"] == 115
    one = results.counts["subjects"]["01"]
    assert (one["runs"], one["targets"], one["targets without data"]) == (4, 24, 0)
    assert one["rows"] + one["pieces left out"] == 115
    assert results.audit["llama"]["words"] == 1516
    assert set(results.versions) >= {"langcortex", "numpy", "torch", "model llama", "model gpt2"}


def test_models_with_other_layers_are_compared_at_those_both_have(results: Results) -> None:
    (comparison,) = results.comparisons
    assert comparison.layers.tolist() == [0, 1, 2]
    assert (comparison.a, comparison.b, comparison.unit, comparison.n_units) == (
        "llama",
        "gpt2",
        "subjects",
        2,
    )
    assert any("they are compared at the 3 that both have" in w for w in results.warnings)


# again


def test_a_second_run_gives_the_same_numbers_to_the_last_bit(
    planted: Path, tmp_path: Path, results: Results
) -> None:
    same(results, run(planted, tmp_path / "fresh"))


def test_two_threads_give_the_numbers_of_one(planted: Path, tmp_path: Path, results: Results) -> None:
    same(results, run(planted, tmp_path / "fresh", "jobs=2"))


def test_another_seed_moves_the_test_and_no_score(planted: Path, tmp_path: Path, results: Results) -> None:
    other = run(planted, tmp_path / "fresh", "seed=4")
    pd.testing.assert_frame_equal(results.scores, other.scores)
    assert not np.array_equal(results.p["gpt2"], other.p["gpt2"])


def test_what_was_finished_is_not_computed_again(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(planted, tmp_path / "out")
    no_fits(monkeypatch)
    same(first, run(planted, tmp_path / "out"))


@pytest.mark.parametrize(
    ("change", "computes"),
    [
        ("name=another", False),
        ("compare.margin=0.5", False),
        ("protocol.n_nulls=5", False),
        ("jobs=2", False),
        ("protocol.pca=14", True),
        ("protocol.penalties=[1.0,10.0]", True),
        ("protocol.inner=2", True),
        ("protocol.confounds=[]", True),
        ("protocol.standardise=run", True),
        ("design.delays=[8.0]", True),
        ("recording.high_pass=0", True),
        ("recording.stimulus_onset=0.5", True),
        ("features.pool=last", True),
    ],
)
def test_what_was_changed_is_computed_again_and_nothing_else(
    planted: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    computes: bool,
) -> None:
    small = ("features.layers=[2]", "protocol.n_nulls=3", 'recording.subjects=["01"]', "design.delays=[6.0]")
    out = tmp_path_factory.mktemp("changed")
    run(planted, out, *small)
    no_fits(monkeypatch)
    if computes:
        with pytest.raises(AssertionError, match="computed again"):
            run(planted, out, *small, change)
    else:
        run(planted, out, *small, change)


def test_corrected_word_times_are_never_answered_with_old_fits(
    planted_corpus: Corpus, tmp_path: Path
) -> None:
    """Sentences move by a tenth of a second, none into another scan: only which scans count how much changes."""
    path = planted_corpus(tmp_path, ("01",), runs=3)
    model = f'models=[{{name = "llama", source = "{read_study(path).models[0].source}"}}]'
    study = ("design.delays=[6.0]", model, "features.layers=[2]", "features.controls=[]", "protocol.confounds=[]",
             "protocol.n_nulls=0")  # fmt: skip
    before = run(path, tmp_path / "out", *study)
    for file in (tmp_path / "story").glob("*.tsv"):
        table = pd.read_csv(file, sep="\t", quoting=3)
        for _, words in table.groupby("sentence"):
            first, last = words.onset.iloc[0], words.onset.iloc[-1] + words.duration.iloc[-1]
            if first // 2 == (first + 0.1) // 2 and -last // 2 == -(last + 0.1) // 2:
                table.loc[words.index, "onset"] += 0.1
        table.to_csv(file, sep="\t", index=False, quoting=3)
    after = run(path, tmp_path / "out", *study)
    pd.testing.assert_frame_equal(after.scores, run(path, tmp_path / "fresh", *study).scores)
    assert not np.allclose(after.scores.value, before.scores.value)


def test_a_study_that_is_stopped_goes_on_where_it_stopped(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    study = read_study(planted, [f"output={tmp_path / 'out'}"])

    def stop(what: str, done: int, total: int) -> None:
        if what == "fitting" and done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, stop)
    kept = tmp_path / "out" / "kept"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["kept", "tokens.tsv"]
    finished = {p.name for p in kept.iterdir()}
    assert sum(name.startswith("fit-") for name in finished) >= 6
    assert not any(name.startswith(".") for name in finished)
    fitted: list[str] = []
    fit = module.fit_layers

    def count(design: Any, names: Any, *rest: Any, **more: Any) -> Any:
        fitted.extend(names)
        return fit(design, names, *rest, **more)

    monkeypatch.setattr(module, "fit_layers", count)
    same(results, run_study(study))
    assert len(fitted) == 16 - sum(name.startswith("fit-") for name in finished)


def test_progress_counts_up_to_its_total(planted: Path, tmp_path: Path) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    study = read_study(planted, [f"output={tmp_path}", "protocol.n_nulls=0"])
    run_study(study, lambda what, done, total: told.setdefault(what, []).append((done, total)))
    assert set(told) == {"reading the story with llama", "reading the story with gpt2", "fitting"}
    for steps in told.values():
        done = [d for d, _ in steps]
        assert done == sorted(done)
        assert steps[-1][0] == steps[-1][1]


# subjects


def test_the_order_of_subjects_changes_no_number(planted: Path, tmp_path: Path, results: Results) -> None:
    other = run(planted, tmp_path, 'recording.subjects=["02","01"]')
    keys = ["subject", "run", "model", "layer", "region", "metric"]
    pd.testing.assert_frame_equal(
        results.scores.sort_values(keys, ignore_index=True), other.scores.sort_values(keys, ignore_index=True)
    )
    for model in ("llama", "gpt2"):
        np.testing.assert_allclose(results.chosen[model], other.chosen[model])
        np.testing.assert_allclose(results.p[model], other.p[model])
    assert results.comparisons[0].effect == pytest.approx(other.comparisons[0].effect)


def test_the_average_is_scored_and_left_out_of_curves_maps_tests_and_comparisons(
    planted: Path, tmp_path: Path, results: Results
) -> None:
    with_average = run(planted, tmp_path, "recording.average=true")
    assert set(with_average.scores.subject) == {"01", "02", "average"}
    people = with_average.scores[with_average.scores.subject != "average"].reset_index(drop=True)
    pd.testing.assert_frame_equal(people, results.scores)
    for model in ("llama", "gpt2"):
        assert with_average.curve(model).index.tolist() == ["01", "02"]
        np.testing.assert_array_equal(with_average.maps[model], results.maps[model])
        np.testing.assert_array_equal(with_average.p[model], results.p[model])
    assert with_average.comparisons[0].n_units == 2
    mine = values(with_average, model="duration", region="auditory", run="all", metric="r", subject="average")
    single = values(results, model="duration", region="auditory", run="all", metric="r")
    assert mine.item() > single.max()


def test_the_average_of_one_subject_is_nobody(planted: Path, tmp_path: Path) -> None:
    found = run(planted, tmp_path, *QUICK, "recording.average=true", 'recording.subjects=["01"]')
    assert set(found.scores.subject) == {"01"}


def test_subjects_with_other_targets_have_scores_but_no_maps(planted_corpus: Corpus, tmp_path: Path) -> None:
    path = planted_corpus(tmp_path, ("01", "02"), runs=3)
    for file in tmp_path.glob("sub-02_*.tsv"):
        pd.read_csv(file, sep="\t").drop(columns="t20").to_csv(file, sep="\t", index=False)
    found = run(
        path,
        tmp_path / "out",
        "features.layers=[2]",
        "protocol.n_nulls=5",
        'recording.regions.silent=["t12"]',
    )
    assert found.space is None
    assert not found.maps
    assert not found.chosen
    assert not found.p
    assert not found.p_corrected
    assert "Subjects have different targets, so there are no maps over subjects." in found.warnings
    assert found.curve("llama").shape == (2, 1)
    assert found.comparisons[0].n_units == 2


def test_a_subject_who_lacks_a_run_is_scored_on_the_others(planted_corpus: Corpus, tmp_path: Path) -> None:
    path = planted_corpus(tmp_path, ("01", "02"))
    (tmp_path / "sub-02_run-3.tsv").unlink()
    found = run(path, tmp_path / "out", "features.layers=[2]", "protocol.n_nulls=19")
    runs = found.scores.groupby("subject").run.unique().map(set)
    assert runs["01"] == {"all", "run-1", "run-2", "run-3", "run-4"}
    assert runs["02"] == {"all", "run-1", "run-2", "run-4"}
    assert (found.p["llama"][LANGUAGE] <= 0.05).all()
    assert found.counts["subjects"]["02"]["runs"] == 3


def test_one_subject_is_compared_over_runs_with_a_warning(planted: Path, tmp_path: Path) -> None:
    found = run(planted, tmp_path, "features.layers=[1,2]", "protocol.n_nulls=0", 'recording.subjects=["01"]')
    assert (found.unit, found.comparisons[0].unit, found.comparisons[0].n_units) == ("runs", "runs", 4)
    assert (
        "There is one subject: the spread is over runs, which says nothing about other people."
        in found.warnings
    )


def test_a_target_without_data_in_one_run_is_undefined_and_counted(
    planted_corpus: Corpus, tmp_path: Path
) -> None:
    path = planted_corpus(tmp_path, ("01",), runs=3)
    file = tmp_path / "sub-01_run-2.tsv"
    table = pd.read_csv(file, sep="\t")
    table["t15"] = 3.0
    table.to_csv(file, sep="\t", index=False)
    found = run(path, tmp_path / "out", "features.layers=[2]", "protocol.n_nulls=5")
    assert found.counts["subjects"]["01"]["targets without data"] == 1
    assert np.isnan(found.chosen["llama"][15])
    assert np.isnan(found.p["llama"][15])
    assert np.isfinite(np.delete(found.chosen["llama"], 15)).all()
    assert found.scores.value.notna().all()


# designs and protocols


def test_a_single_run_is_cut_into_blocks(planted_corpus: Corpus, tmp_path: Path) -> None:
    path = planted_corpus(tmp_path, ("01",), runs=1, what=Plant(signal=0.8))
    quick = (
        "protocol.gap=2",
        "protocol.folds=3",
        "protocol.inner=2",
        "protocol.n_nulls=19",
        "features.layers=[2]",
    )
    found = run(path, tmp_path / "out", *quick)
    assert set(found.scores.run) == {"all", "run-1"}
    assert len(found.chosen_layers["llama"]["01"]) == 3
    assert not found.comparisons
    assert any("there are 1 runs" in w for w in found.warnings)


def test_one_run_too_short_for_its_blocks_is_one_sentence(planted_corpus: Corpus, tmp_path: Path) -> None:
    path = planted_corpus(tmp_path, ("01",), runs=1)
    with pytest.raises(FitError, match="Use fewer folds"):
        run(path, tmp_path / "out", *QUICK, "protocol.folds=10")


def test_test_runs_alone_are_scored(planted: Path, tmp_path: Path) -> None:
    found = run(
        planted, tmp_path, "features.layers=[2]", 'protocol.test_runs=["run-2"]', "protocol.n_nulls=39"
    )
    assert set(found.scores.run) == {"all", "run-2"}
    assert found.delays == {"01": [6.0], "02": [6.0]}
    assert values(found, model="llama", layer=2, region="language", run="all", metric="r").min() > 0.2
    with pytest.raises(SettingsError, match="names 'run-9', but the runs are: run-1, run-2, run-3, run-4"):
        run(planted, tmp_path, *QUICK, 'protocol.test_runs=["run-9"]')


@pytest.mark.parametrize(
    "response", [("fir", "design.delays=[4.0,6.0,8.0]"), ("glover",), ("spm",), ("kernels:late",)], ids=lambda r: r[0]
)  # fmt: skip
def test_scans_are_rows_with_every_kind_of_response(
    planted_corpus: Corpus, tmp_path: Path, response: tuple[str, ...]
) -> None:
    path = planted_corpus(tmp_path, ("01",), runs=3)
    (tmp_path / "kernels.py").write_text(
        "import numpy as np\n\n\ndef late(tr, oversampling):\n"
        "    time = np.arange(0, 20, tr / oversampling)\n"
        "    return np.exp(-((time - 6.0) ** 2) / 4)\n",
        encoding="utf-8",
    )
    kind, *more = response
    found = run(
        path, tmp_path / "out", "design.rows=scans", f"design.response={kind}", *more, "features.layers=[2]",
        "protocol.n_nulls=0", "protocol.inner=2",
    )  # fmt: skip
    assert found.protocol.confounds == ("word_count",)
    assert found.delays == {"01": [0.0] * 3}
    language = values(found, model="llama", layer=2, region="language", run="all", metric="r").item()
    silent = values(found, model="llama", layer=2, region="silent", run="all", metric="r").item()
    assert language > silent + 0.1
    assert abs(silent) < 0.12


def test_controls_can_be_fitted_without_a_model(planted: Path, tmp_path: Path) -> None:
    found = run(planted, tmp_path, *QUICK, 'features.controls=["duration","word_rate"]')
    assert found.models == ()
    assert found.controls == ("duration", "word_rate")
    assert not found.comparisons
    assert values(found, model="duration", region="auditory", run="all", metric="r").min() > 0.3


def test_a_study_of_nothing_is_one_sentence(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="names neither a model nor a control"):
        run(planted, tmp_path, *QUICK, "features.controls=[]")
    with pytest.raises(SettingsError, match="needs a model"):
        run(planted, tmp_path, "models=[]", 'protocol={preset = "replication-2025"}')
    assert not list(tmp_path.iterdir())


def test_a_region_that_is_not_there_is_told_before_anything_is_fitted(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "fit_layers", None)
    with pytest.raises(
        SettingsError,
        match=r"^compare\.region is 'IFG', but the regions are: auditory, brain, language, silent\.$",
    ):
        run(planted, tmp_path, *QUICK, "compare.region=IFG")


# things of one's own

MINE = """
import numpy as np
from langcortex import Features, Recording, Space, control
from langcortex.stimulus import make_story

class Mine:
    def __init__(self, path, loud=1.0):
        self.path, self.loud = path, loud

    def subjects(self):
        return ["a"]

    def story(self):
        words = [w for i in range(15) for w in (f"word{{i}}" .format(i=i), "and", "more.")]
        run = {{f"r{{k}}": 1.0 + np.cumsum(np.random.default_rng(k).uniform(0.5, 2.5, len(words))) for k in range(3)}}
        return make_story({{r: words for r in run}}, run, {{r: np.full(len(words), 0.4) for r in run}})

    def runs(self, subject):
        return self.story().runs

    def recording(self, subject, run):
        s = self.story().sentences
        rows = s.run == run
        time = np.arange(60) * 2.0
        values = np.random.default_rng(hash_of(run)).standard_normal((60, 3)).astype(np.float32)
        for onset, length in zip(s.onset[rows] + 6, s.duration[rows]):
            values[(time >= onset - 1) & (time < onset + length), 0] += self.loud * (length - 4)
        return Recording(values, time, 2.0, run, subject, Space("columns", np.array(["x", "y", "z"])))

def hash_of(run):
    return int(run[1:]) + 100

def corpus(path, loud=1.0):
    return Mine(path, loud)

def nothing(path):
    return 3

def letters_of_mine(story):
    s = story.sentences
    return Features("some other name", s.ids, s.onset, s.duration, s.run, s.duration[:, None] ** 2)
""".replace("{{", "{").replace("}}", "}")


@pytest.fixture
def mine(tmp_path: Path) -> Study:
    (tmp_path / "my_module.py").write_text(MINE, encoding="utf-8")
    path = tmp_path / "study.toml"
    path.write_text(
        '[data]\ncorpus = "my_module:corpus"\noptions = {loud = 3.0}\n'
        '[features]\ncontrols = ["my_module:letters_of_mine", "word_rate"]\n'
        "[protocol]\nconfounds = []\nn_nulls = 0\n",
        encoding="utf-8",
    )
    return read_study(path, allow_code=True)


def test_a_corpus_and_a_control_of_ones_own(mine: Study) -> None:
    found = run_study(mine)
    assert set(found.scores.subject) == {"a"}
    assert found.controls == ("letters_of_mine", "word_rate")
    assert set(found.scores.model) == {"letters_of_mine", "word_rate"}
    assert found.maps["letters_of_mine"][0, 0] > 0.3


def test_a_confound_of_ones_own_takes_its_share(mine: Study, tmp_path: Path) -> None:
    """The planted column follows duration; with its square taken out, less of it is left for word rate."""
    confounded = read_study(
        tmp_path / "study.toml",
        ['features.controls=["duration"]', 'protocol.confounds=["my_module:letters_of_mine"]'],
        allow_code=True,
    )
    assert confounded.to_protocol().confounds == ("letters_of_mine",)
    plain = run_study(read_study(tmp_path / "study.toml", ['features.controls=["duration"]'], True))
    assert plain.maps["duration"][0, 0] > 0.3
    assert run_study(confounded).controls == ("duration",)


def test_a_corpus_that_is_none_is_one_sentence(mine: Study, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'my_module:nothing' must return an object with subjects\(\)"):
        run_study(
            read_study(tmp_path / "study.toml", ["data.corpus=my_module:nothing", "data.options={}"], True)
        )


@pytest.mark.parametrize("table", ["story", "recording"])
def test_a_study_that_says_not_where_things_are_is_one_sentence(
    planted: Path, tmp_path: Path, table: str
) -> None:
    with pytest.raises(
        SettingsError, match=f"The study does not say where the {table} is. Set {table}.files."
    ):
        run(planted, tmp_path, f'{table}.files=""')


def test_no_subjects_is_one_sentence(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="The study has no subjects"):
        run(planted, tmp_path, "recording.subjects=[]")
    with pytest.raises(RecordingError, match="Subject '9' has no recording"):
        run(planted, tmp_path, *QUICK, 'recording.subjects=["9"]')


# Where and how it is fitted


def test_torch_and_another_regime_give_the_same_study(
    planted: Path, tmp_path: Path, results: Results
) -> None:
    """And the results say which regime it was."""
    assert set(results.regimes.values()) <= {"pairs", "axes", "kernel"}
    assert results.regimes
    other = run(planted, tmp_path, "fit.on=torch", "fit.regime=kernel", "protocol.n_nulls=20")
    assert set(other.regimes.values()) == {"kernel"}
    np.testing.assert_allclose(other.scores.value, results.scores.value, atol=2e-4)
    assert other.delays == results.delays


def test_predictions_and_weights_are_written_where_they_are_asked_for(planted: Path, tmp_path: Path) -> None:
    found = run(planted, tmp_path, "fit.predictions=true", "fit.weights=true", "protocol.n_nulls=0")
    folders = sorted((tmp_path / "fits").iterdir())
    assert len(folders) == len(found.models) * len(found.chosen_layers[found.models[0]])
    predicted, weights = (np.load(folders[0] / f"{name}.npy") for name in ("predicted", "weights"))
    table = pd.read_csv(folders[0] / "rows.tsv", sep="\t")
    assert predicted.shape == (len(table), 24)
    assert weights.shape[0] == table.run.nunique()
    assert np.isfinite(weights).all()


def test_a_device_that_is_not_there_is_said_before_anything_is_read(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(FitError, match="cannot be fitted on 'cuda:9'"):
        run(planted, tmp_path, "fit.on=cuda:9")
    assert not list(tmp_path.iterdir())
