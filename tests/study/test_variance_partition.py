"""Unique variance as a part of a study: bands are what the settings say, the planted model has some, and it goes on."""

from __future__ import annotations

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from langcortex.errors import SettingsError
from langcortex.report.variance_partition import plot_partition, select_partition_regions
from langcortex.study.check import check_study
from langcortex.study.feature_spaces import Spaces
from langcortex.study.run import run_study, write_results
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study, read_study
from langcortex.study.variance_partition import (
    StudyPartition,
    make_bands,
    partition_controls,
    partitioned_models,
    untrained_twins,
)

LAYERS = ("layer-00", "layer-01", "layer-02")


def settings(**partition) -> Study:
    return make_study(
        {
            "models": [{"name": "llama", "source": "a", "untrained": 2}, {"name": "gpt2", "source": "b"}],
            "features": {"controls": ["word_rate", "duration"], "take": ["states", "heads", "surprisal"]},
            "partition": partition or True,
        }
    )


@pytest.fixture
def spaces() -> Spaces:
    of_model = {}
    for label in ("llama", "llama-untrained-0", "llama-untrained-1", "gpt2"):
        of_model[label] = tuple(f"{label}/{one}" for one in LAYERS)
        of_model[f"{label}-heads"] = tuple(f"{label}/heads-{one[-2:]}" for one in LAYERS[1:])
    own = [f"{label}/surprisal" for label in ("llama", "gpt2")]
    controls = ("word_rate", "duration", *own)
    tables = dict.fromkeys(
        [*controls, "log_frequency", *(n for names in of_model.values() for n in names)], object()
    )
    return Spaces(tables, of_model, controls, {}, {}, {})


def test_all_models_but_untrained_twins_are_partitioned(spaces):
    assert partitioned_models(settings(), spaces) == ["llama", "llama-heads", "gpt2", "gpt2-heads"]
    assert partitioned_models(settings(models=["gpt2"]), spaces) == ["gpt2"]
    with pytest.raises(SettingsError, match=r"partition.models names 'bert', but the models are: llama"):
        settings(models=["bert"])
    fewer = Spaces({}, {"gpt2": spaces.of_model["gpt2"]}, (), {}, {}, {})
    with pytest.raises(SettingsError, match=r"partition.models names 'llama', but the models are: gpt2"):
        partitioned_models(settings(models=["llama"]), fewer)
    assert StudyPartition(make_study({"models": [{"source": "a"}]}), spaces).scores == {}


def test_every_control_is_a_band_and_surprisal_is_the_models_own(spaces):
    assert partition_controls(settings(), spaces, "llama-heads") == {
        "word_rate": ["word_rate"], "duration": ["duration"], "surprisal": ["llama/surprisal"],
    }  # fmt: skip
    study = settings(bands={"words": ["word_rate", "log_frequency"], "expected": ["surprisal"]})
    assert partition_controls(study, spaces, "gpt2") == {
        "words": ["word_rate", "log_frequency"], "expected": ["gpt2/surprisal"],
    }  # fmt: skip


def test_twins_are_of_the_same_source_kind_and_layer(spaces):
    assert untrained_twins(settings(), spaces, "llama") == ["llama-untrained-0", "llama-untrained-1"]
    assert untrained_twins(settings(), spaces, "llama-heads") == [
        "llama-untrained-0-heads",
        "llama-untrained-1-heads",
    ]
    assert untrained_twins(settings(), spaces, "gpt2") == []
    assert untrained_twins(settings(twin=False), spaces, "llama") == []


def test_every_fold_has_the_layer_chosen_for_it_and_the_twins_same_layer(spaces):
    bands = make_bands(settings(bands={"rate": ["word_rate"]}), spaces, "llama", [2, 0])
    assert list(bands) == ["llama", "rate", "untrained"]
    assert bands["llama"] == [("llama/layer-02",), ("llama/layer-00",)]
    assert bands["untrained"][0] == ("llama-untrained-0/layer-02", "llama-untrained-1/layer-02")
    assert bands["rate"] == [("word_rate",)] * 2


@pytest.mark.parametrize(
    ("bands", "said"),
    [
        ({"untrained": ["word_rate"]}, "'untrained' is the name of another band"),
        ({"a": []}, "'a' is empty"),
        ({"a": ["nothing"]}, "'a' names 'nothing', but the controls are: word_rate, duration, surprisal"),
    ],
)
def test_mistakes_in_bands_are_said(spaces, bands, said):
    with pytest.raises(SettingsError, match=re.escape(said)):
        partition_controls(settings(bands=bands), spaces, "llama")


def test_without_controls_there_is_nothing_to_partition(spaces):
    bare = Spaces({}, {"llama": spaces.of_model["llama"]}, (), {}, {}, {})
    study = make_study({"models": [{"name": "llama", "source": "a"}], "partition": True})
    with pytest.raises(SettingsError, match="partition: there are no controls"):
        StudyPartition(study, bare)


def test_partition_is_true_a_table_or_off():
    assert not make_study({}).partition.on
    assert make_study({"partition": True}).partition.on
    assert make_study({"partition": {"n_gammas": 5}}).partition.on
    assert not make_study({"partition": {"on": False, "n_gammas": 5}}).partition.on
    again = make_study({"partition": make_study({}).partition.model_dump()})
    assert not again.partition.on
    with pytest.raises(
        SettingsError, match=r"\[partition\]: no setting is called 'band'. Did you mean 'bands'"
    ):
        make_study({"partition": {"band": {}}})


# a whole study


@pytest.fixture(scope="module")
def finished(planted_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    path = planted_corpus(folder)
    overrides = [
        'partition={models=["llama"], n_gammas=8}', "models.0.untrained=1", "models.1.name=other", "protocol.n_nulls=0",
        'features.controls=["duration","word_count"]', "features.layers=[0,2]", "inference.n_resamples=500",
    ]  # fmt: skip
    study = read_study(path, overrides)
    results = run_study(study)
    write_results(results, folder / "results")
    return SimpleNamespace(study=study, results=results, folder=folder / "results")


def test_the_planted_model_has_variance_of_its_own_where_it_was_planted(finished):
    (found,) = finished.results.partitions
    assert found.bands == ("llama", "duration", "word_count", "untrained")
    assert found.holds["untrained"] == ["the same layer of llama-untrained-0"]
    unique = {region: found.get(region, "llama", "unique").value for region in ("language", "silent")}
    assert unique["language"] > 0.03
    assert abs(unique["silent"]) < 0.03
    assert found.get("language", "llama", "alone").value > found.get("language", "untrained", "alone").value
    # what follows duration is duration's own
    assert found.get("auditory", "duration", "unique").value > found.get("auditory", "llama", "unique").value
    # R² of the model by itself is that of the study, where nothing is regressed out
    assert (found.unit, found.n_units) == ("subjects", 2)


def test_tables_maps_and_report_say_it(finished):
    table = pd.read_csv(finished.folder / "partition.tsv", sep="\t")
    assert set(table.measure) == {"joint", "alone", "unique", "shared", "omega", "above untrained"}
    assert (finished.folder / "maps" / "llama_layer-chosen_stat-unique-llama.tsv").is_file()
    assert (finished.folder / "maps" / "llama_layer-chosen_stat-omega.tsv").is_file()
    assert (finished.folder / "figures" / "partition_llama.png").is_file()
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>Unique variance</h2>" in page
    assert "In language, the layer of llama chosen in training explains R² = " in page
    assert "llama, unique variance and R² of bands: p and corrected p" in page
    tests = pd.read_csv(finished.folder / "tests.tsv", sep="\t")
    assert tests.of.str.contains("unique variance").sum() == 2
    json.loads((finished.folder / "summary.json").read_text())


def test_a_second_run_finds_every_fit_again(finished, monkeypatch):
    from langcortex.encoding import variance_partition as unique

    def never(*args, **kwargs):
        raise AssertionError("fitted again")

    monkeypatch.setattr(unique, "fit_bands", never)
    again = run_study(finished.study)
    # the first run wrote float32
    np.testing.assert_allclose(
        again.partitions[0].table.value, finished.results.partitions[0].table.value, atol=2e-3, equal_nan=True
    )


def test_the_figure_adds_up_to_the_joint_r2(finished):
    (found,) = finished.results.partitions
    regions = select_partition_regions(found, "language")
    assert regions[:2] == ["brain", "language"]
    ax = plot_partition(found, regions)
    widths = np.array([[bar.get_width() for bar in group] for group in ax.containers])
    joint = [found.get(r, "all", "joint").value for r in regions]
    np.testing.assert_allclose(widths.sum(axis=0), joint, atol=1e-9)
    assert [t.get_text() for t in ax.get_yticklabels()] == regions
    assert "R² of held-out rows" in ax.get_xlabel()


def test_of_many_regions_the_best_and_the_worst_are_shown(finished):
    (found,) = finished.results.partitions
    first = found.table.iloc[0].to_dict()
    rows = [
        {**first, "region": f"p{i:03d}", "band": "llama", "measure": "unique", "value": 1 + i}
        for i in range(400)
    ]
    many = dataclasses.replace(found, table=pd.concat([found.table, pd.DataFrame(rows)]))
    shown = select_partition_regions(many, "language", n_extremes=2)
    assert shown[:4] == ["brain", "language", "p399", "p398"]
    assert len(shown) == 6
    assert set(shown[4:]) <= {"auditory", "silent"}


def test_a_region_that_is_not_there_is_named(planted_corpus, tmp_path):
    path = planted_corpus(tmp_path, subjects=("01",))
    with pytest.raises(
        SettingsError, match=r"partition.region is 'IFG', but the regions are: brain, language"
    ):
        run_study(read_study(path, ["partition.region=IFG", "features.layers=[2]", "protocol.n_nulls=0"]))


def test_check_says_what_is_wrong_with_a_partition_before_anything_is_fitted(planted_corpus, tmp_path):
    path = planted_corpus(tmp_path, subjects=("01",))
    wrong = read_study(path, ['partition={region="IFG", bands={a=["loudness"]}}'])
    problems = check_study(wrong, clock="none").problems
    for said in ("partition.region is 'IFG'", "No control is called 'loudness'"):
        assert any(said in problem for problem in problems), problems
