"""Study files: every mistake is a sentence that helps, and every setting stands in the template."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from langcortex.encoding.protocol import Protocol
from langcortex.errors import SettingsError
from langcortex.study import settings as module
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study, read_study, study_template

MODELS = [{"name": "base", "source": "a/b"}, {"name": "tuned", "source": "a/c"}]


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(values: dict[str, object]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        make_study(values, "study.toml")
    return str(caught.value).splitlines()


# mistakes


def test_an_unknown_setting_is_named_with_a_guess(tmp_path: Path) -> None:
    path = write(tmp_path, "[design]\ndelay = [4.0]\n")
    with pytest.raises(SettingsError) as caught:
        read_study(path)
    assert str(caught.value) == ("study.toml, [design]: no setting is called 'delay'. Did you mean 'delays'?")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"sead": 1}, "study.toml: no setting is called 'sead'. Did you mean 'seed'?"),
        ({"tr": 2.0}, "study.toml: no setting is called 'tr'. Did you mean 'recording.tr'?"),
        ({"features": {"margin": 1}}, "study.toml, [features]: no setting is called 'margin'. Did you mean 'compare.margin'?"),
        ({"models": [{"source": "x", "sorce": "y"}]}, "study.toml, [models.0]: no setting is called 'sorce'. Did you mean 'source'?"),
        ({"qqqqqq": 1}, "study.toml: no setting is called 'qqqqqq'."),
    ],
)  # fmt: skip
def test_guesses_look_in_the_same_table_first_and_then_everywhere(
    values: dict[str, object], sentence: str
) -> None:
    assert problems(values) == [sentence]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": "many"}, "study.toml: 'seed' should be a whole number, not 'many'."),
        ({"jobs": -1}, "study.toml: 'jobs' should be greater than or equal to 0, not -1."),
        ({"recording": {"tr": 0.0}}, "study.toml: 'recording.tr' should be greater than 0, not 0.0."),
        ({"recording": {"detrend": "perhaps"}}, "study.toml: 'recording.detrend' should be a boolean, not 'perhaps'."),
        ({"design": {"rows": "letters"}}, "study.toml: 'design.rows' should be 'sentences', 'phrases', 'words' or 'scans', not 'letters'."),
        ({"models": [{"source": 7}]}, "study.toml: 'models.0.source' should be a string, not 7."),
        ({"models": [{"name": "x"}]}, "study.toml, [models.0]: the setting 'source' is missing."),
        ({"compare": {"margin": 0}}, "study.toml: 'compare.margin' should be greater than 0, not 0."),
        ({"design": 4}, "study.toml: 'design' should be a table, not 4."),
        ({"design": {"delays": 4}}, "study.toml: 'design.delays' should be a list, not 4."),
    ],
)  # fmt: skip
def test_a_wrong_type_is_one_sentence(values: dict[str, object], sentence: str) -> None:
    assert problems(values) == [sentence]


@pytest.mark.parametrize(
    ("values", "setting", "kind"),
    [
        ({"story": {"files": 3}}, "story.files", "string"),
        ({"protocol": {"folds": "scans"}}, "protocol.folds", "'runs'"),
        ({"protocol": {"inner": [1]}}, "protocol.inner", "whole number"),
        ({"features": {"context": "page"}}, "features.context", "'sentence'"),
        ({"recording": {"stimulus_onset": "late"}}, "recording.stimulus_onset", "number"),
    ],
)
def test_a_setting_of_two_kinds_is_one_sentence_too(
    values: dict[str, object], setting: str, kind: str
) -> None:
    """What can be text or a number must not be told as two settings with names of Python types."""
    (sentence,) = problems(values)
    assert sentence.startswith(f"study.toml: '{setting}' should be")
    assert kind in sentence
    assert " or " in sentence
    assert "literal" not in sentence


def test_the_deepest_problem_of_a_setting_of_two_kinds_is_told() -> None:
    assert problems({"recording": {"stimulus_onset": {"run-1": 8, "run-2": "late"}}}) == [
        "study.toml: 'recording.stimulus_onset.run-2' should be a number, not 'late'."
    ]


def test_all_problems_are_told_at_once() -> None:
    sentences = problems(
        {
            "seeds": 1,
            "design": {"delay": 4, "rows": "letters"},
            "recording": {"tr": -1},
            "models": [{"name": "x"}, {"source": "y", "dtype": "int8"}],
            "story": {"files": 3},
        }
    )
    assert len(sentences) == 7
    for part in ("'seeds'", "'delay'", "design.rows", "recording.tr", "'source'", "models.1.dtype", "story.files"):  # fmt: skip
        assert sum(part in line for line in sentences) == 1


def test_every_model_needs_a_name_of_its_own() -> None:
    twice = {"models": [{"source": "hub/base"}, {"source": "/disk/base"}]}
    assert problems(twice) == ["study.toml: two models are called 'base'. Give each a name of its own."]
    make_study({"models": [{"source": "hub/base"}, {"source": "/disk/base", "name": "mine"}]})


@pytest.mark.parametrize("name", ["a/b", "/"])
def test_a_name_that_cannot_be_a_file_name_is_refused(name: str) -> None:
    assert problems({"models": [{"source": "x", "name": name}]}) == [
        f"study.toml: '{name}' cannot name a model; use letters, digits, dots and dashes."
    ]


def test_pairs_name_models_of_the_study() -> None:
    good = make_study({"models": MODELS, "compare": {"pairs": [["tuned", "base"]]}})
    assert good.compare.pairs == [("tuned", "base")]
    assert problems({"models": MODELS, "compare": {"pairs": [["base", "chat"]]}}) == [
        "study.toml: compare.pairs names 'chat', but the models are: base, tuned."
    ]
    assert problems({"compare": {"pairs": [["base", "chat"]]}}) == [
        "study.toml: compare.pairs names 'base', but the models are: none."
    ]


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"nowhere\.toml does not exist\. Write one with: langcortex init nowhere\.toml$"
    ):
        read_study(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    "content", [b"[design\n", b"name = \xff\n", b"name = study\n", b"seed = 1\nseed = 2\n"]
)
def test_what_is_no_toml_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^study\.toml is not valid TOML: .+\.$") as caught:
        read_study(path)
    assert "\n" not in str(caught.value)


# overrides


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        '[recording]\ntr = 1.5\n[[models]]\nsource = "x/one"\n[[models]]\nsource = "x/two"\n',
    )


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("recording.tr=2", lambda s: s.recording.tr, 2.0),
        ("seed=7", lambda s: s.seed, 7),
        ("models.1.dtype=bfloat16", lambda s: s.models[1].dtype, "bfloat16"),
        ("models.0.untrained_seed=3", lambda s: s.models[0].untrained_seed, 3),
        ("design.delays=[4.0, 6.0]", lambda s: s.design.delays, [4.0, 6.0]),
        ("data.path=/data/le petit prince", lambda s: s.data.path, "/data/le petit prince"),
        ("data.path=/a=b/c=d", lambda s: s.data.path, "/a=b/c=d"),
        ('name="a # b"', lambda s: s.name, "a # b"),
        ("name=it's #1", lambda s: s.name, "it's #1"),
        ("name=", lambda s: s.name, ""),
        ("recording.detrend=false", lambda s: s.recording.detrend, False),
        ('recording.runs={section1 = "15"}', lambda s: s.recording.runs, {"section1": "15"}),
        ("recording.regions.front=masks/front.nii.gz", lambda s: s.recording.regions, {"front": "masks/front.nii.gz"}),
        ('data.options.nested.deep="x"', lambda s: s.data.options, {"nested": {"deep": "x"}}),
        ("models=[]", lambda s: s.models, []),
    ],
)  # fmt: skip
def test_set_overrides_one_setting_and_leaves_the_rest(plain: Path, override, read, value) -> None:
    study = read_study(plain, [override])
    assert read(study) == value
    if not override.startswith("models="):
        assert [m.source for m in study.models] == ["x/one", "x/two"]
    if not override.startswith("recording.tr"):
        assert study.recording.tr == 1.5


def test_the_last_of_two_overrides_counts(plain: Path) -> None:
    assert read_study(plain, ["seed=1", "name=x", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.path", "--set takes key=value, e.g. --set data.path=/data/lpp; not 'data.path'."),
        ("=3", "--set takes key=value, e.g. --set data.path=/data/lpp; not '=3'."),
        ("models.2.dtype=float16", "--set models.2.dtype: there is no entry 2; there are 2, counted from 0."),
        ("models.base.dtype=float16", "--set models.base.dtype: there is no entry base; there are 2, counted from 0."),
        ("models.0=x", "--set models.0: name the entry and the key, e.g. models.0.source."),
        ("recording.tr.seconds=2", "--set recording.tr.seconds: 'tr' is a value, not a table."),
        ("design.delay=[4.0]", "study.toml, [design]: no setting is called 'delay'. Did you mean 'delays'?"),
        ("recording.tr=soon", "study.toml: 'recording.tr' should be a number, not 'soon'."),
    ],
)  # fmt: skip
def test_an_override_that_cannot_be_is_one_sentence(plain: Path, override: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_study(plain, [override])
    assert str(caught.value) == sentence


# the template


def test_the_template_is_a_study_as_it_stands(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, study_template()))
    assert [m.label for m in study.models] == ["base", "instruct"]
    assert study.story.files == "story/{run}.TextGrid"
    assert study.to_protocol() == Protocol(confounds=("duration",))


def test_every_setting_stands_in_the_template_under_its_table() -> None:
    tables: dict[str, set[str]] = {"": set()}
    here = ""
    for line in study_template().splitlines():
        heading = re.fullmatch(r"\[\[?([\w.]+)\]\]?", line)
        setting = re.match(r"(?:# )?(\w+) = ", line)
        if heading:
            here = heading[1]
            tables.setdefault(here, set())
        elif setting:
            tables[here].add(setting[1])
    kinds = {
        "": Study, "data": module.Data, "story": module.StorySettings, "recording": module.RecordingSettings,
        "models": module.ModelSettings, "features": module.FeatureSettings, "design": module.DesignSettings,
        "protocol": module.ProtocolSettings, "compare": module.CompareSettings,
        "recording.atlas": module.AtlasSettings, "partition": module.PartitionSettings, "inference": module.InferenceSettings,
        "fit": module.FitSettings,
    }  # fmt: skip
    top = {"name", "output", "seed", "jobs"}
    nested = {"recording": {"atlas"}}
    assert set(Study.model_fields) == top | {name.split(".")[0] for name in kinds if name} | {
        "folder",
        "allow_code",
    }
    assert tables == {
        name: top if not name else set(kind.model_fields) - nested.get(name, set())
        for name, kind in kinds.items()
    }


def test_the_defaults_the_template_shows_are_the_defaults() -> None:
    """With every commented setting taken in, nothing changes but the pairs, which name the template's models."""
    lines = [
        line.removeprefix("# ") if re.match(r"# \w+ = (?!…)", line) else line
        for line in study_template().splitlines()
    ]
    uncommented = make_study(tomllib.loads("\n".join(lines)))
    plain = make_study(tomllib.loads(study_template()))
    assert uncommented.compare.pairs == [("base", "instruct")]
    unlike = {"compare": plain.compare, "folder": ""}
    assert uncommented.model_copy(update=unlike) == plain.model_copy(update=unlike)
