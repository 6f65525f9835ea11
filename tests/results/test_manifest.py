"""A step replaces its own files, and touches no other."""

from __future__ import annotations

import json

import pytest

from langcortex.errors import StoreError
from langcortex.results.manifest import read_manifest, update_manifest, verify_files


def _write(folder, **texts):
    folder.mkdir(exist_ok=True)
    paths = []
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_tsv", ".tsv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths


def _run(folder, **texts):
    return update_manifest(
        folder, "run", _write(folder, **texts), study="s", inputs={"model": "abc"}, kept_results=["k"]
    )


def test_a_file_that_the_next_run_does_not_write_is_removed(tmp_path):
    assert _run(tmp_path, scores_tsv="1", maps__a_tsv="2") == []
    assert _run(tmp_path, scores_tsv="3") == []
    assert not (tmp_path / "maps" / "a.tsv").exists()
    assert list(read_manifest(tmp_path).files) == ["scores.tsv"]
    assert read_manifest(tmp_path).inputs == {"run": {"model": "abc"}}
    assert read_manifest(tmp_path).kept_results == ("k",)


def test_what_a_user_changed_or_added_stays_and_is_named(tmp_path):
    _run(tmp_path, scores_tsv="1", old_tsv="2")
    _write(tmp_path, old_tsv="mine", notes_tsv="mine too")
    assert _run(tmp_path, scores_tsv="3") == ["notes.tsv", "old.tsv"]
    assert (tmp_path / "old.tsv").read_text() == "mine"


def test_the_files_of_another_step_stay(tmp_path):
    _run(tmp_path, scores_tsv="1")
    assert update_manifest(tmp_path, "audit", _write(tmp_path, null_tsv="2"), study="s") == []
    assert _run(tmp_path, layers_tsv="1") == []
    assert sorted(read_manifest(tmp_path).files) == ["layers.tsv", "null.tsv"]
    assert read_manifest(tmp_path).kept_results == ("k",)


def test_kept_results_and_drafts_are_no_strangers(tmp_path):
    _write(tmp_path, kept__a_tsv="1", **{".draft_tsv": "2"})
    assert _run(tmp_path, scores_tsv="1") == []


def test_a_file_that_is_missing_or_changed_is_named(tmp_path):
    _run(tmp_path, a_tsv="1", b_tsv="2", c_tsv="3")
    assert verify_files(tmp_path) == []
    (tmp_path / "a.tsv").unlink()
    (tmp_path / "b.tsv").write_text("x")
    assert [p.split(" ")[0].rsplit("/", 1)[1] for p in verify_files(tmp_path)] == ["a.tsv", "b.tsv"]


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}', '{"files": {"a": {}}}', "\x00"])
def test_a_damaged_manifest_is_one_sentence(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match=r"manifest\.json cannot be read .* Delete it"):
        read_manifest(tmp_path)


def test_the_same_files_give_the_same_manifest(tmp_path):
    _run(tmp_path / "a", x_tsv="1", y_tsv="2")
    _run(tmp_path / "b", y_tsv="2", x_tsv="1")
    texts = [(tmp_path / name / "manifest.json").read_text() for name in "ab"]
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["files"]["x.tsv"]["size"] == 1
