"""Compared models that read different tokens around the same words are an error, or a finding where that is meant."""

import json

import pytest

from langcortex.audit.study_leaks import audit_study
from langcortex.errors import SettingsError
from langcortex.study.check import check_study
from langcortex.study.feature_spaces import make_spaces
from langcortex.study.frames import check_frames, frame_differences, read_frames
from langcortex.study.settings_file import read_study


@pytest.fixture(scope="module")
def file(planted_corpus, tmp_path_factory):
    return planted_corpus(tmp_path_factory.mktemp("frames"), subjects=("01",))


def test_tokenizers_that_do_not_agree_are_an_error_until_the_study_says_what_it_wants(file):
    text = file.read_text(encoding="utf-8")
    unset = file.with_name("unset.toml")
    unset.write_text(text.replace('bos = "tokenizer"\n', ""), encoding="utf-8")
    study = read_study(unset)
    with pytest.raises(
        SettingsError, match=r"'llama' and 'gpt2' are compared.*\(<s> and none\).*features.bos"
    ):
        make_spaces(study, None, None, study.to_protocol(), lambda *_: None)
    checked = check_study(study, clock="none")
    assert [p for p in checked.problems if "features.bos" in p]
    assert "begin with '<s>'" in checked.facts["frame of llama"]
    assert "no special token" in checked.facts["frame of gpt2"]
    for bos in ("true", "false"):
        asked = read_study(file, [f"features.bos={bos}"])
        frames = read_frames(asked)
        check_frames(asked, frames)
        assert not list(frame_differences(asked, frames))
        assert not [f for f in audit_study(asked).findings if "frames" in f.what]


def test_a_difference_that_is_meant_is_a_finding(file):
    study = read_study(file)
    check_frames(study, read_frames(study))
    (finding,) = [f for f in audit_study(study).findings if "different frames" in f.what]
    assert finding.level == "risk"
    assert "beginning-of-text token (<s> and none)" in finding.how_bad
    alone = read_study(file, ["compare.pairs=[]"])
    assert not list(frame_differences(alone, read_frames(alone)))


def test_check_finds_a_model_that_lacks_files_and_a_context_that_is_too_long(file, gpt2_folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((gpt2_folder / name).read_bytes())
    problems = check_study(read_study(file, [f"models.1.source={tmp_path}"]), clock="none").problems
    assert [p for p in problems if "has no weights" in p]
    problems = check_study(read_study(file, ["features.context=65"]), clock="none").problems
    assert [p for p in problems if "a context of 65 is too long" in p]
    assert json.dumps(problems)
