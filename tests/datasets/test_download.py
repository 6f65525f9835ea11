"""Download: plans list the files, tools are called with their own interfaces, and incomplete files are named."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from langcortex.datasets import download as fetch
from langcortex.datasets.download import download, list_present, verify
from langcortex.datasets.manifests import DownloadPlan, plan_download
from langcortex.errors import LangcortexError, RecordingError, SettingsError

# plans


def test_lpp_has_the_images_and_words_of_its_subjects_but_no_embeddings(tmp_path: Path) -> None:
    plan = plan_download("lpp", ["EN057", "sub-FR001"], tmp_path)
    assert (plan.dataset, plan.tag) == ("ds003643", "2.0.7")
    assert "derivatives/sub-EN057/func/sub-EN057_task-lppEN_run-*_bold.nii.gz" in plan.include
    assert "annotation/EN/lppEN_word_information.csv" in plan.include
    assert "annotation/EN/lppEN_coreference.csv" in plan.include
    assert "annotation/FR/lppFR_coreference.csv" not in plan.include
    assert not any("embeddings" in pattern or "CN" in pattern for pattern in plan.include)
    assert plan.files == 2 + 14 + 13 + 18
    assert plan.size == 12_000 + 19_543_101 + 25_706_093 + 651_900_000 + 744_000_000


def test_raw_lpp_has_the_chosen_echoes(tmp_path: Path) -> None:
    single, triple = (plan_download("lpp", ["EN059"], tmp_path, kind="raw", echo=e) for e in (2, 0))
    assert "sub-EN059/func/sub-EN059_task-lppEN_run-*_echo-2_bold.json" in single.include
    assert not any("echo-1" in p for p in single.include)
    assert single.files is not None
    assert triple.files is not None
    assert (single.files - 16, triple.files - 16) == (2 * 11, 3 * 2 * 11)  # two runs were aborted


def test_plans_match_the_published_files(shared_data: Path, tmp_path: Path) -> None:
    """Each pattern matches files of ds003643 2.0.7, and as many as the plan states."""
    names = (shared_data / "lpp" / "ds003643_v2.0.7_files.txt").read_text().split()
    everyone = sorted({n.split("/")[0][4:] for n in names if n.startswith("sub-")})
    for subjects, options in ((everyone, {}), (["EN059", "CN032", "FR001"], {"kind": "raw"})):
        plan = plan_download("lpp", subjects, tmp_path, **options)
        for name in names:
            if any(f"/sub-{s}/" in f"/{name}" for s in subjects) or "sub-" not in name:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).touch()
        assert len(list_present(plan)) == plan.files


def test_the_size_of_lebel_is_rows_times_voxels_times_8_bytes(tmp_path: Path) -> None:
    """Published sizes: (scans − 20) × voxels float64 and a 2048-byte header; the test story has its repeats too."""
    plan = plan_download("lebel", ["UTS02"], tmp_path)
    assert plan.size == 2_005 + 84_526_092 + (27_797 + 291 * 11) * 94_251 * 8 + 83 * 2_048 + 2_168
    assert plan.files == 1 + 84 + 84
    assert "derivative/preprocessed_data/UTS02/*.hf5" in plan.include
    two_stories = plan_download("lebel", ["UTS02"], tmp_path, stories=["souls", "wheretheressmoke"])
    assert two_stories.files == 5
    assert two_stories.size is not None
    assert 2.4e9 < two_stories.size - 2_413_581_776 + 2.4e9 < 2.8e9
    assert "derivative/preprocessed_data/UTS02/souls.hf5" in two_stories.include


def test_narratives_come_from_datalad_only(tmp_path: Path) -> None:
    plan = plan_download("narratives", ["001"], tmp_path, task=["pieman", "tunnel"])
    assert plan.tools == ("datalad",)
    assert plan.size is None
    assert "derivatives/fmriprep/sub-001/func/sub-001_task-pieman_*desc-preproc_bold.nii.gz" in plan.include
    assert "sub-001/func/sub-001_task-tunnel_*events.tsv" in plan.extras
    smooth = plan_download(
        "narratives", ["001"], tmp_path, task="pieman", derivatives="afni-smooth", kind="surface"
    )
    assert smooth.include == (
        "derivatives/afni-smooth/sub-001/func/sub-001_task-pieman_*hemi-*_desc-clean.func.gii",
    )


def test_reading_brain_has_the_files_that_preprocessing_needs(tmp_path: Path) -> None:
    plan = plan_download("reading_brain", ["01", "02"], tmp_path)
    assert (plan.dataset, plan.tag, plan.files) == ("ds003974", "3.0.0", 7 + 26)
    assert "sub-02/func/sub-02_task-read_run-*_events.tsv" in plan.include
    assert not any("rest" in p or "dwi" in p for p in plan.include)


@pytest.mark.parametrize("corpus", ["lpp", "lebel", "reading_brain"])
def test_a_plan_is_described_in_lines(corpus: str, tmp_path: Path) -> None:
    subject = {"lpp": "CN001", "lebel": "UTS05", "reading_brain": "21"}[corpus]
    text = "\n".join(plan_download(corpus, [subject], tmp_path).lines())
    for part in (
        "GB" if corpus == "lebel" else "MB",
        "Licence: CC0",
        "doi:10.18112/openneuro",
        f"into {tmp_path}",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("corpus", "subjects", "options", "sentence"),
    [
        (
            "petit",
            ["1"],
            {},
            "No corpus to fetch is called 'petit'. There are: lpp, lebel, narratives, reading_brain",
        ),
        ("lpp", [], {}, "Name at least one subject of lpp to fetch, e.g. EN057"),
        ("lpp", ["EN060"], {}, "lpp has no subject 'EN060'. Its 112 subjects are EN057 to FR030"),
        ("lpp", ["EN057", "sub-EN057"], {}, "Subject 'EN057' is named twice"),
        ("lpp", ["EN057"], {"stories": 1}, "Fetching lpp has no option 'stories'. It takes: kind, echo"),
        ("lpp", ["EN057"], {"kind": "warm"}, "kind is derivatives or raw, not 'warm'"),
        ("lpp", ["EN057"], {"echo": 4}, "echo is 1, 2 or 3"),
        ("narratives", ["001"], {}, "needs a task"),
        ("narratives", ["001"], {"task": "pieman", "derivatives": "spm"}, "not 'spm'"),
        ("narratives", ["001"], {"task": "pieman", "kind": "flat"}, "not 'flat'"),
        ("reading_brain", ["1"], {}, "no subject '1'"),
    ],
)
def test_plans_that_are_impossible_are_refused(
    corpus: str, subjects: list[str], options: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=sentence.replace(".", r"\.")):
        plan_download(corpus, subjects, tmp_path, **options)


# tools

CONTENT = b"onset,word\n1,yes\n"
NAMES = [
    "README",
    "participants.tsv",
    *(f"annotation/EN/lppEN_section{k}.TextGrid" for k in range(1, 10)),
    *(f"annotation/EN/lppEN_{t}.csv" for t in ("word_information", "tree", "dependency", "prosody", "coreference")),
    *(f"derivatives/sub-EN057/func/sub-EN057_task-lppEN_run-{r}_space-MNIColin27_desc-preproc_bold.nii.gz" for r in range(15, 24)),
    *(f"derivatives/sub-EN058/func/sub-EN058_task-lppEN_run-{r}_space-MNIColin27_desc-preproc_bold.nii.gz" for r in range(7, 16)),
    "annotation/EN/lppEN_word_embeddings_BERT.csv",
]  # fmt: skip

DATALAD = """
import json, os, sys
from pathlib import Path
log, names, content, fail = (os.environ[k] for k in ("LOG", "NAMES", "CONTENT", "FAIL"))
with open(log, "a") as f:
    f.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
if fail and fail in sys.argv:
    print("get(ok): a"); print("CommandError: it broke", file=sys.stderr); sys.exit(1)
key = os.environ["KEY"]
if sys.argv[1] == "clone":
    to = Path(sys.argv[3])
    (to / ".datalad").mkdir(parents=True)
    for name in json.loads(names):
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * name.count("/")
        path.symlink_to(f"{up}.git/annex/objects/{name.replace('/', '_')}/{key}")
elif sys.argv[1] == "get":
    for name in sys.argv[2:]:
        if name == "--no-data":
            continue
        target = Path(name).parent / os.readlink(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
"""


@pytest.fixture
def datalad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a datalad and a git on the path that only log their calls; return the log."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("datalad", "git"):
        (folder / name).write_text(f"#!{sys.executable}\n{DATALAD}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    for key, value in {
        "LOG": str(tmp_path / "log"),
        "NAMES": json.dumps(NAMES),
        "CONTENT": CONTENT.decode(),
        "KEY": f"MD5E-s{len(CONTENT)}--{hashlib.md5(CONTENT).hexdigest()}.csv",
        "FAIL": "",
    }.items():
        monkeypatch.setenv(key, value)
    return tmp_path / "log"


def calls(log: Path) -> list[list[str]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_datalad_clones_once_checks_out_the_snapshot_and_gets_only_the_files_of_the_plan(
    datalad: Path, tmp_path: Path
) -> None:
    plan = plan_download("lpp", ["EN057"], tmp_path / "to" / "lpp")
    calls_of_progress: list[tuple[str, int, int]] = []
    files = download(plan, progress=lambda *progress_call: calls_of_progress.append(progress_call))
    assert calls(datalad)[:2] == [
        ["datalad", "clone", "https://github.com/OpenNeuroDatasets/ds003643.git", str(plan.folder)],
        ["git", "checkout", "--quiet", "2.0.7"],
    ]
    got = [name for call in calls(datalad)[2:] for name in call[2:]]
    assert all(call[:2] == ["datalad", "get"] and len(call) <= 2 + fetch.BATCH for call in calls(datalad)[2:])
    assert (
        sorted(got) == sorted(files) == sorted(n for n in NAMES if "EN058" not in n and "embeddings" not in n)
    )
    assert calls_of_progress[-1] == ("fetching ds003643", 25, 25)
    assert verify(plan.folder, files) == []


def test_a_relative_folder_is_relative_to_the_working_directory(
    datalad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    download(plan_download("lpp", ["EN057"], Path("data/lpp")))
    assert (tmp_path / "here/data/lpp/README").read_bytes() == CONTENT


def test_files_that_are_here_are_left_alone(datalad: Path, tmp_path: Path) -> None:
    plan = plan_download("lpp", ["EN057"], tmp_path / "lpp")
    download(plan, "datalad")
    datalad.unlink()
    (plan.folder / NAMES[5]).resolve().unlink()
    download(plan, "datalad")
    assert calls(datalad) == [["datalad", "get", NAMES[5]]]
    datalad.unlink()
    download(plan, "datalad")
    assert not datalad.exists()


def test_a_subdataset_is_opened_first(tmp_path: Path, datalad: Path) -> None:
    plan = plan_download("narratives", ["001"], tmp_path / "n", task="pieman")
    (plan.folder / ".datalad").mkdir(parents=True)
    (plan.folder / "derivatives" / "fmriprep").mkdir(parents=True)
    with pytest.raises(RecordingError):  # the stand-in opens an empty folder
        download(plan)
    assert ["datalad", "get", "--no-data", str(plan.folder / "derivatives/fmriprep")] in calls(datalad)


@pytest.mark.parametrize(
    ("fail", "sentence"),
    [
        (
            "clone",
            r"datalad clone https://\S+ failed in .*: CommandError: it broke. Run the same command again",
        ),
        (
            "checkout",
            r"git checkout --quiet failed in .*: CommandError: it broke. The clone is at its newest snapshot; run: git -C",
        ),
        ("get", r"datalad get README failed in .*: CommandError: it broke. Run the same command again"),
    ],
)
def test_a_failing_tool_is_quoted(
    datalad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: str, sentence: str
) -> None:
    monkeypatch.setenv("FAIL", fail)
    with pytest.raises(RecordingError, match=sentence):
        download(plan_download("lpp", ["EN057"], tmp_path / "lpp"))


def test_a_file_that_the_dataset_lacks_is_named(
    datalad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMES", json.dumps([n for n in NAMES if "EN057" not in n]))
    with pytest.raises(
        RecordingError, match=r"ds003643 has no file derivatives/sub-EN057/func/.* Check the subjects"
    ):
        download(plan_download("lpp", ["EN057"], tmp_path / "lpp"))


def test_a_folder_of_something_else_is_left_alone(datalad: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(RecordingError, match="is no DataLad dataset, and is not empty"):
        download(plan_download("lpp", ["EN057"], tmp_path / "full"))
    assert not datalad.exists()


def test_a_tool_that_cannot_be_run_is_an_error(datalad: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "datalad").write_text("#!/no/such/python\n")
    with pytest.raises(RecordingError, match=r"datalad cannot be run \(No such file or directory\)"):
        download(plan_download("lpp", ["EN057"], tmp_path / "lpp"))


def test_a_full_disk_is_an_error_before_anything_is_fetched(
    datalad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 600_000_000))
    with pytest.raises(
        RecordingError, match=r"lpp still needs about 671 MB, but the disk of .* has 600 MB free. Make room"
    ):
        download(plan_download("lpp", ["EN057"], tmp_path / "lpp"))
    assert not datalad.exists()


@pytest.fixture
def openneuro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Replace openneuro-py on a machine without DataLad: arguments are checked against its real signature."""
    module = pytest.importorskip("openneuro")
    signature = inspect.signature(module.download)
    called: list[dict[str, object]] = []

    def stand_in(*args: object, **options: object) -> None:
        bound = signature.bind(*args, **options).arguments
        called.append(bound)
        for name in NAMES:
            path = Path(bound["target_dir"]) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENT)

    monkeypatch.setattr(module, "download", stand_in)
    monkeypatch.setenv("PATH", str(tmp_path))
    return called


def test_without_datalad_openneuro_py_is_called(openneuro: list[dict[str, object]], tmp_path: Path) -> None:
    plan = plan_download("lpp", ["EN057"], tmp_path / "lpp")
    files = download(plan)
    (called,) = openneuro
    assert called["dataset"] == "ds003643"
    assert called["tag"] == "2.0.7"
    assert called["target_dir"] == plan.folder
    assert called["include"][:2] == ["/README", "/participants.tsv"]  # type: ignore[index]
    assert len(files) == 25
    assert verify(plan.folder, files) == []


def test_openneuro_py_understands_the_patterns(tmp_path: Path) -> None:
    """Its own matching finds the files of the plan, and nothing more."""
    globbing = pytest.importorskip("openneuro._glob")
    plan = plan_download("lpp", ["EN057"], tmp_path)
    patterns = [p if "/" in p else f"/{p}" for p in plan.include]
    matched = globbing.glob_filter([*NAMES, "stimuli/README"], patterns)
    assert all(matched.values())
    assert {n for names in matched.values() for n in names} == {
        n for n in NAMES if "EN058" not in n and "embeddings" not in n
    }


def test_an_error_of_openneuro_py_is_one_sentence(
    openneuro: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**options: object) -> None:
        raise RuntimeError("Failed to download\n 2 files.")

    monkeypatch.setattr("openneuro.download", broken)
    with pytest.raises(
        RecordingError, match=r"could not fetch ds003643: Failed to download 2 files. Run the same"
    ):
        download(plan_download("lpp", ["EN057"], tmp_path / "lpp"))


def test_a_file_that_did_not_arrive_is_named(
    openneuro: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CONTENT", b"")
    with pytest.raises(RecordingError, match=r"README did not arrive. Run the same command again"):
        download(plan_download("lpp", ["EN057"], tmp_path / "lpp"))


def test_missing_tools_are_named_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    plan, elsewhere = (
        plan_download("lpp", ["EN057"], tmp_path),
        plan_download("narratives", ["001"], tmp_path, task="pieman"),
    )
    with pytest.raises(
        SettingsError, match="narratives can only be fetched by DataLad, which is not installed"
    ):
        download(elsewhere)
    with pytest.raises(
        SettingsError, match=r"openneuro cannot fetch narratives: on OpenNeuro, ds002345 has only raw"
    ):
        download(elsewhere, "openneuro")
    with pytest.raises(SettingsError, match="DataLad is not installed"):
        download(plan, "datalad")
    with pytest.raises(SettingsError, match="not by 'wget'"):
        download(plan, "wget")
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install openneuro-py"):
        download(plan)


# verification


def annexed(folder: Path, name: str, content: bytes | None, key: str) -> Path:
    """Create a link as git-annex does, and its object unless `content` is None."""
    target = folder / ".git" / "annex" / "objects" / "Xx" / "Yy" / key / key
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
    if content is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return path


def annex_key(backend: str, content: bytes, end: str = "") -> str:
    checksum = hashlib.new(backend.rstrip("E").lower(), content).hexdigest()
    return f"{backend}-s{len(content)}--{checksum}{end}"


@pytest.mark.parametrize("backend", ["MD5E", "MD5", "SHA256E", "SHA256", "SHA1"])
def test_size_and_checksum_are_compared_with_the_key(tmp_path: Path, backend: str) -> None:
    end = ".nii.gz" if backend.endswith("E") else ""
    annexed(tmp_path, "a/good.nii.gz", CONTENT, annex_key(backend, CONTENT, end))
    assert verify(tmp_path, ["a/good.nii.gz"]) == []
    annexed(tmp_path, "short.nii.gz", CONTENT[:-1], annex_key(backend, CONTENT + b"1", end))
    annexed(tmp_path, "wrong.nii.gz", CONTENT[::-1], annex_key(backend, CONTENT[1:] + b"2", end))
    short, wrong = verify(tmp_path, ["a/good.nii.gz", "short.nii.gz", Path("wrong.nii.gz")])
    assert (
        f"short.nii.gz has {len(CONTENT) - 1} bytes, but {len(CONTENT) + 1} were published. Run: git annex fsck"
        in short
    )
    assert f"wrong.nii.gz has the right size but another {backend.rstrip('E')} than was published" in wrong


def test_files_that_are_missing_links_pointers_or_empty_are_named(tmp_path: Path) -> None:
    annexed(tmp_path, "link.csv", None, annex_key("MD5E", CONTENT, ".csv"))
    (tmp_path / "pointer.csv").write_text("/annex/objects/MD5E-s3--0.csv\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "plain.csv").write_bytes(CONTENT)
    names = ["link.csv", "pointer.csv", "empty.csv", "gone.csv", "plain.csv"]
    link, pointer, empty, gone = verify(tmp_path, names)
    assert "link.csv has not been downloaded" in link
    assert "datalad get" in link
    assert "datalad get" in pointer
    assert "empty.csv is empty" in empty
    assert "gone.csv does not exist" in gone


def test_keys_without_checksum_or_size_are_checked_as_far_as_possible(tmp_path: Path) -> None:
    annexed(tmp_path, "url", CONTENT, f"URL-s{len(CONTENT)}--http&c%%x")
    annexed(tmp_path, "unsized", CONTENT, f"SHA256--{hashlib.sha256(CONTENT).hexdigest()}")
    annexed(tmp_path, "odd", CONTENT, "no key")
    (tmp_path / "other").symlink_to(tmp_path / "url")
    assert verify(tmp_path, ["url", "unsized", "odd", "other"]) == []
    annexed(tmp_path, "url2", CONTENT, "URL-s3--http&c%%y")
    annexed(tmp_path, "unsized2", CONTENT, f"SHA256--{'0' * 64}")
    assert len(verify(tmp_path, ["url2", "unsized2"])) == 2


def test_dangling_links_are_listed(tmp_path: Path) -> None:
    plan = DownloadPlan(
        "x", "d", None, "u", tmp_path, ("a/*.csv", "b.csv"), None, None, "", "", "", extras=("c/*/d",)
    )
    annexed(tmp_path, "a/1.csv", None, "k")
    annexed(tmp_path, "b.csv", None, "k")
    assert list_present(plan) == ["a/1.csv", "b.csv"]
    (tmp_path / "b.csv").unlink()
    with pytest.raises(LangcortexError, match=r"d has no file b.csv"):
        list_present(plan)
