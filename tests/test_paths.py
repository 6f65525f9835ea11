"""Finding files: by pattern, in natural order, with the reason where a file cannot be read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langcortex.errors import RecordingError, StoryError
from langcortex.paths import expand_pattern, natural_key, require_file, safe_cells, safe_name


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_a_file_with_content_is_returned_under_its_own_name(tmp_path):
    _touch(tmp_path, "annex/object")
    link = tmp_path / "sub-01_bold.nii.gz"
    link.symlink_to(tmp_path / "annex" / "object")
    assert require_file(link, RecordingError, "recording") == link  # never what the link points to


def test_the_reason_why_a_file_cannot_be_read_is_a_sentence(tmp_path):
    (tmp_path / "dangling").symlink_to(".git/annex/objects/aa/bb/MD5E-s3--abc/MD5E-s3--abc")
    (tmp_path / "pointer").write_text("/annex/objects/MD5E-s3--abc.nii.gz\n")
    (tmp_path / "windows").write_text("..\\.git\\annex\\objects\\MD5E-s3--abc.nii.gz\n")
    (tmp_path / "empty").write_bytes(b"")
    for name, message in {
        "dangling": "has not been downloaded .* Run: datalad get .*dangling",
        "pointer": "has not been downloaded .* Run: datalad get",
        "windows": "has not been downloaded .* Run: datalad get",
        "empty": "is empty .0 bytes",
        "absent": "does not exist. Check the path",
        "no/where": "the folder .*no does not exist either",
        ".": "is a folder; a file is needed",
    }.items():
        with pytest.raises(StoryError, match=message) as error:
            require_file(tmp_path / name, StoryError, "story file")
        assert str(error.value).startswith("The story file ")


def test_a_pattern_finds_runs_in_natural_order(tmp_path):
    _touch(
        tmp_path, *(f"sub-01/func/sub-01_run-{i}_bold.nii.gz" for i in (10, 9, 1)), "sub-01/func/other.nii.gz"
    )
    files = expand_pattern("sub-{subject}/func/sub-{subject}_run-{run}_bold.nii.gz", tmp_path, subject="01")
    assert list(files) == ["1", "9", "10"]
    assert files["9"] == tmp_path / "sub-01" / "func" / "sub-01_run-9_bold.nii.gz"
    absolute = expand_pattern(str(tmp_path) + "/sub-01/func/*_run-{run}_bold.nii.gz", Path("/elsewhere"))
    assert absolute == files


def test_a_placeholder_used_twice_stands_for_the_same_run(tmp_path):
    _touch(tmp_path, "run-1/run-1_bold.nii", "run-1/run-2_bold.nii", "run-2/run-2_bold.nii")
    files = expand_pattern("run-{run}/run-{run}_bold.nii", tmp_path)
    assert {run: path.parent.name for run, path in files.items()} == {"1": "run-1", "2": "run-2"}


def test_a_star_does_not_cross_folders_and_braces_do_not_match_slashes(tmp_path):
    _touch(tmp_path, "a/b/run-1.tsv", "a/run-2.tsv")
    assert list(expand_pattern("a/*-{run}.tsv", tmp_path)) == ["2"]
    assert list(expand_pattern("*/run-{run}.tsv", tmp_path)) == ["2"]


def test_a_pattern_without_run_names_runs_by_file(tmp_path):
    _touch(tmp_path, "section2.TextGrid", "section1.TextGrid", "section10.TextGrid")
    assert list(expand_pattern("*.TextGrid", tmp_path)) == ["section1", "section2", "section10"]


@pytest.mark.parametrize(
    "pattern", ["./data/run-{run}.tsv", "data//run-{run}.tsv", "../here/data/run-{run}.tsv"]
)
def test_a_pattern_may_be_written_in_other_ways(tmp_path, pattern):
    _touch(tmp_path / "here", "data/run-1.tsv")
    assert list(expand_pattern(pattern, tmp_path / "here")) == ["1"]


def test_a_pattern_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _touch(tmp_path, "data/run-1.tsv")
    assert list(expand_pattern("~/data/run-{run}.tsv", Path("/elsewhere"))) == ["1"]


def test_characters_of_regular_expressions_have_no_special_meaning(tmp_path):
    _touch(tmp_path, "a+b (1)/run-1.tsv", "aab (1)/run-2.tsv")
    assert list(expand_pattern("a+b (1)/run-{run}.tsv", tmp_path)) == ["1"]


def test_two_files_for_a_run_are_an_error(tmp_path):
    _touch(tmp_path, "run-1_echo-1.nii", "run-1_echo-2.nii")
    with pytest.raises(Exception, match=r"run-1_echo-1\.nii.*run-1_echo-2\.nii"):
        expand_pattern("run-{run}_echo-*.nii", tmp_path)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_natural_order_is_the_order_of_numbers(numbers):
    assert sorted([f"run-{n}" for n in numbers], key=natural_key) == [f"run-{n}" for n in sorted(numbers)]


@given(st.lists(st.text(max_size=6), max_size=6, unique=True))
@example(["run-²", "run-2"])
def test_any_names_can_be_sorted(names):
    keys = [natural_key(name) for name in sorted(names, key=natural_key)]
    assert keys == sorted(keys)


# labels as names of files and cells of tables

HOSTILE = (
    "../../x", "<script>alert(1)</script>", "a\tb", "x" * 300, "CON", "nul.txt", "", ".", "..", "a.", "a ", ".hidden", "-rf",
    "a/b", "a\\b", "a\nb", "a\0b", "日本" * 80, "com1", "LPT9.gz", "a:b", "a*b", "\u202eabc", "C:\\x", "~", "$HOME", "%TEMP%", "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_becomes_one_safe_name(label, tmp_path):
    name = safe_name(label)
    assert Path(name).name == name
    assert not set(name) & set('/\\:*?"<>|\0\t\n\r')
    assert not name.startswith((".", "-", " "))
    assert not name.endswith((".", " "))
    assert name.split(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    path = tmp_path / f".{name}_layer-chosen_group_stat-ptfce_hemi-L.func.gii.tmp12345678.func.gii"
    path.write_text("x")
    assert path.parent == tmp_path


@pytest.mark.parametrize(
    "label", ["smollm2", "smollm2-untrained-0", "EN057", "gpt2-heads", "Llama 3.1 (4bit)", "学生", "a_b"]
)
def test_a_good_label_stays_as_it_is(label):
    assert safe_name(label) == label


def test_no_two_labels_give_one_name():
    labels = [*HOSTILE, "a-b", "a b", "x", "script", "-x", "x" * 299, "x" * 301, "hidden"]
    names = [safe_name(label) for label in labels]
    again = [safe_name(name) for name in names if name not in labels]
    assert len({*names, *again}) == len(names) + len(again)


@given(st.text(max_size=120), st.text(max_size=120))
@example("../a", safe_name("../a"))
@example("A_layer-07", "A")
def test_names_of_any_two_labels_differ(a, b):
    assert (safe_name(a) == safe_name(b)) == (a == b)
    assert len(safe_name(a).encode()) <= 100


def test_labels_cannot_spell_the_file_of_another_label():
    """Files are called LABEL_layer-07_stat-r, A-minus-B_…, ceiling-perfect_…."""
    assert f"{safe_name('a_layer-07')}_stat-r" != f"{safe_name('a')}_layer-07_stat-r"
    assert safe_name("a-minus-b") != f"{safe_name('a')}-minus-{safe_name('b')}"
    assert safe_name("ceiling-perfect") != "ceiling-perfect"
    assert (
        f"{safe_name('a_b', avoid='_')}_{safe_name('c')}" != f"{safe_name('a', avoid='_')}_{safe_name('b_c')}"
    )


def test_cells_have_no_tabs_and_line_breaks(tmp_path):
    table = pd.DataFrame(
        {"na\tme": ["a\tb", "a b", None], "x": [1.5, 2.0, np.nan], "k": [1, 2, 3]}, index=[5, 5, 5]
    )
    table["q"] = ["line\r\nbreak\u2028\x00", 3, "ü"]
    safe_cells(table).to_csv(tmp_path / "t.tsv", sep="\t", index=False, na_rep="n/a")
    lines = (tmp_path / "t.tsv").read_text(encoding="utf-8").split("\n")
    assert lines == [
        "na\\tme\tx\tk\tq",
        "a\\tb\t1.5\t1\tline\\r\\nbreak\\x2028\\x00",
        "a b\t2.0\t2\t3",
        "n/a\tn/a\t3\tü",
        "",
    ]
