"""`check` finds every problem that `run` would meet, and says each once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from langcortex.errors import LangcortexError, SettingsError
from langcortex.features.models.memory import ModelShape, require_memory
from langcortex.study.check import Check, check_study
from langcortex.study.run import run_study
from langcortex.study.settings_file import make_study, read_study


@pytest.fixture
def study(planted_corpus: Callable[..., Path], tmp_path: Path) -> Path:
    return planted_corpus(tmp_path, ("01", "02"), runs=3)


def look(path: Path, *changes: str) -> Check:
    return check_study(read_study(path, changes))


def told_once(problems: list[str], sentence: str) -> bool:
    return sum(sentence in line for line in problems) == 1


PROBLEMS = [
    (["compare.region=IFG"], "compare.region is 'IFG', but the regions are: auditory, brain, language, silent"),
    (["partition.region=IFG"], "partition.region is 'IFG', but the regions are"),
    (["protocol.folds=10"], "protocol.folds is 10, but there are 3 runs to split"),
    (["protocol.inner=3"], "protocol.inner is 3, but there are 2 training runs to split"),
    (["models.0.device=cuda:7"], "There is no GPU 'cuda:7'"),
    (["models.0.quantization=4bit"], "quantization = '4bit' needs the package bitsandbytes"),
    (["features.chat=user"], "The chat template of 'llama' cannot be filled"),
    (["features.chat=user"], "The chat template of 'gpt2' cannot be filled"),
    (["features.layers=[0]", 'features.take=["heads"]'], "features.take: 'heads' belongs to the blocks of 'gpt2'"),
    (["features.layers=[3]"], "features.layers: 'gpt2' has layers 0 to 2; there is no layer 3"),
    (["design.delays=[5.0]"], "A delay of 5 s falls between scans of run 'run-1'"),
    (["design.rows=scans", "design.response=fir", "design.delays=[3.0]"], "A delay of 3 s falls between scans of run 'run-1'"),
    (["design.rows=scans", "design.trim=[900.0, 900.0]"], "no scan falls into the story"),
    (['protocol.confounds=["nonsense"]'], "No control is called 'nonsense'"),
    (['partition.bands={ b = ["nonsense"] }'], "No control is called 'nonsense'"),
    (["features.options={ duration = { wide = 3 } }"], "The control 'duration' has no option 'wide'"),
    (["features.options={ other = { wide = 3 } }"], "features.options has 'other', but features.controls has not"),
    (["fit.on=cuda:9"], "Responses cannot be fitted on 'cuda:9'"),
    (["output=story/run-1.tsv/results"], "is a file, so nothing can be written into"),
    (['recording.regions={ language = ["none"] }'], "Region 'language'"),
    (["recording.regions={ language = [] }"], "Region 'language'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), PROBLEMS, ids=lambda x: str(x)[:50])
def test_a_problem_of_run_is_a_problem_of_check(study: Path, changes: list[str], sentence: str) -> None:
    found = look(study, *changes)
    assert told_once(found.problems, sentence), found.problems
    assert len(set(found.problems)) == len(found.problems)
    assert not (study.parent / "results").exists()


def test_one_run_with_a_gap_that_leaves_no_rows(planted_corpus: Callable[..., Path], tmp_path: Path) -> None:
    path = planted_corpus(tmp_path, ("01",), runs=1)
    assert look(path, "protocol.pca=3").problems == []
    (problem,) = look(path, "protocol.gap=500", "protocol.pca=3").problems
    assert "With a gap of 500 scans, 0 rows are left to learn from" in problem


def test_a_model_folder_without_tokenizer_or_weights(study: Path, llama_folder: Path, tmp_path: Path) -> None:
    for name, files in (
        ("no-weights", "*.safetensors"),
        ("no-tokenizer", "tokenizer*"),
        ("no-config", "config.json"),
    ):
        folder = tmp_path / name
        shutil.copytree(llama_folder, folder)
        for path in folder.glob(files):
            path.unlink()
        found = look(study, f"models.0.source={folder}")
        assert len(found.problems) == 1, found.problems
        with pytest.raises(LangcortexError):
            run_study(read_study(study, [f"models.0.source={folder}", "output=other"]))
    untrained = ["models.0.untrained_seed=1", f"models.0.source={tmp_path / 'no-weights'}"]
    assert look(study, *untrained).problems == []


def test_a_template_is_filled_by_check(study: Path, llama_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with-template"
    shutil.copytree(llama_folder, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    changes = [f'models=[{{ source = "{folder}", name = "chatty" }}]', "features.chat=user"]
    assert look(study, *changes).problems == []
    settings["chat_template"] = "{{ raise_exception('no system here') }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    other = tmp_path / "with-another-template"
    shutil.copytree(folder, other)
    (problem,) = look(
        study, f'models=[{{ source = "{other}", name = "chatty" }}]', "features.chat=user"
    ).problems
    assert "no system here" in problem


def test_a_model_larger_than_the_memory(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "langcortex.study.check.read_model_shape",
        lambda *_, **__: ModelShape(32, 4096, 8_030_000_000),
    )
    monkeypatch.setattr("langcortex.features.models.memory.free_main_memory", lambda: 7.5)
    found = look(study, "models.0.device=cpu", "features.layers=[1]")
    assert told_once(
        found.problems, "'llama' has about 8.0 billion parameters: in float32 they need 32 GB"
    ), found.problems
    require_memory("small", ModelShape(2, 8, 1000), "float32", None, "cpu")


def test_a_missing_run_is_said_by_check_and_run(study: Path) -> None:
    (study.parent / "sub-02_run-2.tsv").unlink()
    found = look(study)
    assert found.problems == []
    assert found.facts["note, subject 02"] == "1 of 3 runs were not recorded: run-2"
    results = run_study(read_study(study, ["models=[]", "protocol.n_nulls=0"]))
    assert (
        sum("Subject '02' has no recording of 1 of 3 runs (run-2)" in line for line in results.warnings) == 1
    )


def test_more_folds_than_a_subject_has_runs(study: Path) -> None:
    (study.parent / "sub-02_run-2.tsv").unlink()
    (problem,) = look(study, "protocol.folds=3", "protocol.inner=2", "protocol.nested_axes=false").problems[
        :1
    ]
    assert "protocol.folds is 3, but there are 2 runs" in problem


def test_a_corpus_that_knows_its_files_refuses_the_templates_line(tmp_path: Path) -> None:
    values = {"data": {"corpus": "lpp", "path": str(tmp_path)}, "story": {"files": "story/{run}.TextGrid"}}
    (problem, *_) = check_study(make_study(values, folder=tmp_path)).problems
    assert problem.startswith('story.files belongs to data.corpus = "files"')


def test_a_folder_of_data_that_does_not_exist(tmp_path: Path) -> None:
    found = check_study(make_study({"data": {"corpus": "fmriprep", "path": "nowhere"}}, folder=tmp_path))
    assert told_once(found.problems, "nowhere does not exist")


def test_two_models_with_one_label_or_one_curve() -> None:
    with pytest.raises(SettingsError, match="two models are called 'gpt2'"):
        make_study({"models": [{"source": "gpt2"}, {"source": "other/gpt2"}]})
    models = [{"source": "a"}, {"source": "b", "name": "a-heads"}]
    with pytest.raises(SettingsError, match="two curves are called 'a-heads'"):
        make_study({"models": models, "features": {"take": ["states", "heads"]}})


def test_an_output_folder_that_cannot_be_written(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langcortex.study.check.os.access", lambda path, mode: False)
    assert told_once(look(study).problems, "nothing can be written into")


def test_check_fits_nothing_loads_no_weights_and_writes_nothing(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were loaded, or a model was fitted")

    for loader in (transformers.AutoModel, transformers.AutoModelForCausalLM):
        monkeypatch.setattr(loader, "from_pretrained", never)
    monkeypatch.setattr("langcortex.encoding.nested_cv.fit_layers", never)
    before = {p: p.stat().st_mtime_ns for p in study.parent.rglob("*")}
    assert look(study).problems == []
    assert {p: p.stat().st_mtime_ns for p in study.parent.rglob("*")} == before


def test_a_region_of_a_corpus_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom langcortex import Recording, Space\nfrom langcortex.stimulus import make_story\n\n\nclass Mine:\n"
        "    def subjects(self):\n        return ['a']\n"
        "    def story(self):\n"
        "        words = ['one', 'two.'] * 40\n"
        "        return make_story({'r': words}, {'r': 8.0 + np.arange(80)}, {'r': np.full(80, 0.5)})\n"
        "    def runs(self, subject):\n        return ['r']\n"
        "    def recording(self, subject, run):\n"
        "        space = Space('columns', np.array(['x', 'y']), regions={'left': np.array([True, False])})\n"
        "        return Recording(np.zeros((60, 2), np.float32), np.arange(60) * 2.0 - 6, 2.0, run, subject, space)\n"
        "\n\ndef corpus(path):\n    return Mine()\n",
        encoding="utf-8",
    )
    values = {"data": {"corpus": "mine:corpus"}, "compare": {"region": "left"}}
    assert check_study(make_study(values, folder=tmp_path, allow_code=True)).problems == []
    values["compare"]["region"] = "right"
    (problem,) = check_study(make_study(values, folder=tmp_path, allow_code=True)).problems
    assert problem == "compare.region is 'right', but the regions are: brain, left."


def test_a_short_table_is_still_described(study: Path) -> None:
    table = pd.read_csv(study.parent / "sub-01_run-2.tsv", sep="\t")
    table.iloc[:40].to_csv(study.parent / "sub-01_run-2.tsv", sep="\t", index=False)
    assert told_once(look(study).problems, "The story of run 'run-2' lasts until")


def test_more_components_than_rows_are_a_note_in_check_and_no_problem(study: Path) -> None:
    found = look(study, "protocol.pca=500")
    assert found.problems == []
    assert "protocol.pca is 500, but the smallest training set has" in found.facts["note, components"]
    assert "note, components" not in look(study, "protocol.pca=3").facts
