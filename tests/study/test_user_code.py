"""A study file runs code only from a file beside itself, and only where somebody allowed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from langcortex.audit import audit_study
from langcortex.errors import SettingsError
from langcortex.study.check import check_study
from langcortex.study.run import run_study
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study, read_study
from langcortex.study.user_code import VARIABLE, find_module, list_code, load_object, require_permission

Told = tuple[int, str, str]
TRACE = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"


@pytest.fixture(autouse=True)
def _no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def allowed(folder: Path) -> Study:
    return make_study({}, folder=folder, allow_code=True)


def write(folder: Path, text: str, module: str = TRACE) -> Path:
    (folder / "mine.py").write_text(module + "def corpus(path):\n    return 3\n", encoding="utf-8")
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


STUDIES = [
    '[data]\ncorpus = "mine:corpus"\n',
    '[features]\ncontrols = ["word_rate", "mine:f"]\n',
    '[design]\nrows = "scans"\nresponse = "mine:kernel"\n',
    '[protocol]\nconfounds = ["mine:f"]\n',
    '[partition]\nbands = { b = ["mine:f"] }\n',
]


@pytest.mark.parametrize("text", STUDIES)
@pytest.mark.parametrize("command", ["run", "check", "audit"])
def test_a_command_shows_the_file_and_what_to_type_and_runs_nothing(
    call: Callable[..., Told], tmp_path: Path, text: str, command: str
) -> None:
    path = write(tmp_path, text)
    code, out, err = call(command, path, "--set", "seed=3")
    assert (code, out) == (2, "")
    assert err.startswith("error")
    assert err.count("\n") == 1
    assert str(tmp_path / "mine.py") in err
    assert f"langcortex {command} {path} --set seed=3 --allow-code" in err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("act", [run_study, check_study, audit_study])
def test_python_needs_permission_too(tmp_path: Path, act: Callable[[Study], object]) -> None:
    study = read_study(write(tmp_path, STUDIES[0]))
    with pytest.raises(SettingsError, match="allow_code=True"):
        act(study)
    assert not (tmp_path / "ran").exists()


def test_permission_comes_from_the_caller_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, STUDIES[0])
    require_permission(read_study(path, allow_code=True))
    for value in ("", "0", "yes"):
        monkeypatch.setenv(VARIABLE, value)
        with pytest.raises(SettingsError, match="runs code"):
            require_permission(read_study(path))
    monkeypatch.setenv(VARIABLE, "1")
    require_permission(read_study(path))
    assert load_object("mine:corpus", read_study(path))("x") == 3


@pytest.mark.parametrize("line", ["allow_code = true", "folder = '/tmp'"])
def test_a_study_file_cannot_allow_itself(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f"{line}\n{STUDIES[0]}")
    with pytest.raises(SettingsError, match=line.split(" ")[0]):
        read_study(path)
    with pytest.raises(SettingsError, match="allow_code"):
        read_study(write(tmp_path, STUDIES[0]), ["allow_code=true"])


def test_the_code_of_a_model_needs_permission_too(call: Callable[..., Told], tmp_path: Path) -> None:
    path = write(tmp_path, '[[models]]\nsource = "nobody/new"\ntrust_remote_code = true\n')
    code, _, err = call("check", path)
    assert code == 2
    assert "nobody/new" in err
    assert f"langcortex check {path} --allow-code" in err
    assert list_code(read_study(path)) == {"models.new.trust_remote_code": "the model 'nobody/new'"}


@pytest.mark.parametrize(
    "spec",
    ["os:system", "numpy.linalg:inv", "langcortex.cache:digest", "../mine:f", "sub/mine:f", "/tmp/mine:f", "mine:f.g", "absent:f", "..:f", "mi\nne:f", "sub.mine:f"],
)  # fmt: skip
def test_code_from_elsewhere_is_refused_always(tmp_path: Path, spec: str) -> None:
    here = tmp_path / "study"
    (here / "sub").mkdir(parents=True)
    for folder in (tmp_path, here / "sub"):
        (folder / "mine.py").write_text("f = 1\n")
    with pytest.raises(SettingsError, match="only from a file beside itself"):
        load_object(spec, allowed(here))
    with pytest.raises(SettingsError, match="only from a file beside itself"):
        require_permission(make_study({"data": {"corpus": spec}}, folder=here, allow_code=True))


def test_an_object_is_found_in_a_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def corpus(path):\n    return ('mine', path)\n", encoding="utf-8")
    assert load_object("mine:corpus", allowed(tmp_path))("x") == ("mine", "x")
    assert find_module("mine:corpus", tmp_path) == tmp_path / "mine.py"


def test_a_file_beside_the_study_hides_no_installed_module(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("loads = 'mine'\n", encoding="utf-8")
    assert load_object("json:loads", allowed(tmp_path)) == "mine"
    import json

    assert json.loads("1") == 1


def test_a_file_beside_the_study_can_define_dataclasses(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass A:\n    x: int = 3\n",
        encoding="utf-8",
    )
    assert load_object("mine:A", allowed(tmp_path))().x == 3


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("mine:corpse", "'mine:corpse': mine has nothing called 'corpse'."),
        ("mine", "'mine' must name a module and something in it: \"my_module:function\"."),
        (":corpus", "':corpus' must name a module and something in it: \"my_module:function\"."),
        ("broken:f", "'broken:f': {folder}/broken.py cannot be imported (SyntaxError: '(' was never closed (broken.py, line 1))."),
        ("needy:f", "'needy:f': {folder}/needy.py cannot be imported (ModuleNotFoundError: No module named 'no_such_thing')."),
    ],
)  # fmt: skip
def test_an_object_that_is_not_there_is_one_sentence(tmp_path: Path, spec: str, sentence: str) -> None:
    (tmp_path / "mine.py").write_text("corpus = 1\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("f = (\n", encoding="utf-8")
    (tmp_path / "needy.py").write_text("import no_such_thing\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_object(spec, allowed(tmp_path))
    assert str(caught.value) == sentence.format(folder=tmp_path)


def test_a_corpus_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, '[data]\ncorpus = "mine:corpus"\noptions = { nonsense = 1 }\n')
    with pytest.raises(SettingsError, match=r"'mine:corpus' cannot open the corpus \(TypeError: .*nonsense"):
        run_study(read_study(path, allow_code=True))


def test_a_study_without_code_needs_no_permission(tmp_path: Path) -> None:
    require_permission(make_study({"models": [{"source": "gpt2"}]}, folder=tmp_path))
