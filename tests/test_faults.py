"""Damaged stores, killed runs, full disks and signals: no number that is wrong without a word, and no traceback."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from langcortex.cache import Store, list_drafts, remove_drafts
from langcortex.errors import StoreError
from langcortex.results.files import write_tables
from langcortex.results.manifest import FILE, read_manifest
from langcortex.results.upkeep import list_leftovers, verify_folders
from langcortex.study.run import run_study, write_results
from langcortex.study.settings_file import read_study

VALUES = np.arange(60, dtype=np.float32).reshape(12, 5) + 0.5


def flip(name: str, position: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[position] ^= 0x10
        (folder / name).write_bytes(bytes(content))

    return damage


def flip_in_place(folder: Path) -> None:
    """Flip a byte and put the time of the file back, as a disk does."""
    path = folder / "x.npy"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def content(name: str, value: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(value) and None


def cut(name: str, n: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size + n)


def another(array: np.ndarray, name: str = "x.npy") -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, array)


def from_other(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copy(folder.parent / "other" / name, folder / name) and None


def swap_folders(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "other", folder)


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def replace_folder(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        shutil.rmtree(folder)
        make(folder)

    return damage


def edit_meta(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        change(meta)
        (folder / "meta.json").write_text(json.dumps(meta))

    return damage


def loop(path: Path) -> None:
    path.symlink_to(path.name)


DAMAGE = {
    "a byte of the array": flip("x.npy", -7),
    "the first byte of the array": flip("x.npy", 128),
    "a byte that leaves no other trace": flip_in_place,
    "a byte of the other array": flip("y.npy", -1),
    "the magic string": flip("x.npy", 0),
    "the version": flip("x.npy", 6),
    "the length of the header": flip("x.npy", 8),
    "the dtype in the header": flip("x.npy", 22),
    "the shape in the header": flip("x.npy", 62),
    "a blank of the header": flip("x.npy", 100),
    "an array cut by a byte": cut("x.npy", -1),
    "an array cut in half": cut("x.npy", -120),
    "a header alone": lambda folder: os.truncate(folder / "x.npy", 128),
    "half a header": lambda folder: os.truncate(folder / "x.npy", 40),
    "an empty array": content("x.npy", b""),
    "zeros in its place": content("x.npy", b"\0" * 368),
    "zeros behind it": cut("x.npy", 64),
    "text in its place": content("x.npy", b"<html>404</html>"),
    "a git-annex pointer": content("x.npy", b"/annex/objects/SHA256E-s12--ab\n"),
    "no array": lambda folder: (folder / "x.npy").unlink(),
    "no other array": lambda folder: (folder / "y.npy").unlink(),
    "an array of the same shape": another(VALUES + 1),
    "another shape": another(VALUES.reshape(5, 12)),
    "rows too few": another(VALUES[:-1]),
    "float64": another(VALUES.astype(np.float64)),
    "integers of the same size": another(VALUES.astype(np.int32)),
    "big-endian": another(VALUES.astype(">f4")),
    "in Fortran's order": another(np.asfortranarray(VALUES)),
    "NaN": another(np.full_like(VALUES, np.nan)),
    "the other key's array": from_other("x.npy"),
    "the other key's values": from_other("meta.json"),
    "the other key's folder": swap_folders,
    "two arrays swapped": lambda folder: shutil.copy(folder / "y.npy", folder / "x.npy") and None,
    "no meta.json": lambda folder: (folder / "meta.json").unlink(),
    "an empty meta.json": content("meta.json", b""),
    "half a meta.json": cut("meta.json", -30),
    "a byte of meta.json": flip("meta.json", 30),
    "a byte of a digest": flip("meta.json", -9),
    "null in meta.json": content("meta.json", b"null"),
    "a list in meta.json": content("meta.json", b"[1]"),
    "no UTF-8 in meta.json": content("meta.json", b"\xff\xfe{}"),
    "depth in meta.json": content("meta.json", b"[" * 100_000),
    "no digests": edit_meta(lambda meta: meta.pop("digest")),
    "no arrays named": edit_meta(lambda meta: meta.pop("arrays")),
    "another value": edit_meta(lambda meta: meta["meta"].update(n=4)),
    "another key": edit_meta(lambda meta: meta.update(key="other")),
    "a folder in place of an array": replaced("x.npy", Path.mkdir),
    "a folder in place of meta.json": replaced("meta.json", Path.mkdir),
    "an array that links to itself": replaced("x.npy", loop),
    "a meta.json that links to itself": replaced("meta.json", loop),
    "an array that links nowhere": replaced("x.npy", lambda path: path.symlink_to("nowhere")),
    "a pipe in place of an array": replaced("x.npy", os.mkfifo),
    "a file in place of the folder": replace_folder(Path.touch),
    "a link to itself in place of the folder": replace_folder(loop),
    "a link to the other key": replace_folder(lambda path: path.symlink_to("other")),
    "an empty folder": replace_folder(Path.mkdir),
    "permission to read an array": lambda folder: (folder / "x.npy").chmod(0),
    "permission to read the folder": lambda folder: folder.chmod(0),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "kept")
    store.save("key", {"x": VALUES, "y": VALUES[0]}, {"n": 3})
    store.save("other", {"x": VALUES * 2, "y": VALUES[1]}, {"n": 5})
    assert store.check("key")
    np.testing.assert_array_equal(store.array("key", "x"), VALUES)
    return store


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_named_and_saved_again(kind: str, store: Store, caplog) -> None:
    DAMAGE[kind](store.root / "key")
    allowed = "permission" in kind and os.geteuid() == 0  # root reads everything
    problems, n_checked = verify_folders([store.root])
    assert n_checked == 2
    assert len(problems) == (0 if allowed else 1)
    assert store.check("key") == allowed
    assert (f"{store.root / 'key'} is damaged" in caplog.text) != allowed
    store.save("key", {"x": VALUES, "y": VALUES[0]}, {"n": 3})
    np.testing.assert_array_equal(store.array("key", "x"), VALUES)
    assert store.meta("key") == {"n": 3}
    np.testing.assert_array_equal(store.array("other", "x"), VALUES * 2)
    assert sorted(path.name for path in store.root.iterdir()) == ["key", "other"]


@pytest.mark.parametrize("kind", DAMAGE)
def test_no_damaged_array_is_read(kind: str, store: Store) -> None:
    """Without a check before, reading is right or an error of one sentence, and saving replaces what is damaged."""
    DAMAGE[kind](store.root / "key")
    found = [attempt(store.array, "key", "x"), attempt(store.array, "key", "y"), attempt(store.meta, "key")]
    for value, right in zip(found, (VALUES, VALUES[0], {"n": 3}), strict=True):
        if isinstance(value, str):
            assert "Delete the folder" in value
            assert "\n" not in value
        else:
            np.testing.assert_array_equal(value, right)
    store.save("key", {"x": VALUES, "y": VALUES[0]}, {"n": 3})
    assert store.problem("key") == ""


def attempt(read: Callable[..., object], *names: str) -> object:
    """Return what is read, or the sentence of the error."""
    try:
        return read(*names)
    except StoreError as error:
        return str(error)


def test_what_earlier_versions_saved_is_read_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "fit-1"
    folder.mkdir(parents=True)
    np.save(folder / "r.npy", VALUES)
    (folder / "meta.json").write_text('{"pieces": ["a"], "regime": ""}')
    store = Store(tmp_path / "kept")
    assert "fit-1" in store
    assert store.check("fit-1", ("r",), ("pieces",))
    np.testing.assert_array_equal(store.array("fit-1", "r"), VALUES)
    assert store.meta("fit-1") == {"pieces": ["a"], "regime": ""}
    assert verify_folders([tmp_path]) == ([], 1)
    os.truncate(folder / "r.npy", 300)
    assert not store.check("fit-1", ("r",))


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 3)), np.float64(3.5), np.array(["a", "bc"]), VALUES.T, VALUES[::2], np.zeros(3, bool)],
)
def test_arrays_of_any_shape_and_order_are_whole(array: np.ndarray, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save("k", {"a": np.asarray(array)}, {"numbers": {1: "x", 10: "y", 2: "z"}, "nan": float("nan")})
    assert store.check("k")
    np.testing.assert_array_equal(store.array("k", "a"), array)
    assert store.array("k", "a").dtype == np.asarray(array).dtype


# drafts


def test_drafts_of_processes_that_ended_are_removed_and_no_others(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", f"""
import os
from pathlib import Path
from langcortex.cache import atomic_write, Store
folder = Path({str(tmp_path)!r})
Store(folder / "kept").save("whole", {{}})
os.mkdir(folder / "kept" / f".fit-1.{{__import__('langcortex.cache', fromlist=['x'])._draft_prefix('')[2:]}}abcdefgh")
with atomic_write(folder / "maps" / "a.nii.gz") as draft:
    draft.write_text("half")
    os._exit(9)
"""], check=False)  # fmt: skip
    assert ended.returncode == 9
    for name in (".gitignore", ".DS_Store", ".hidden.tsv", ".vimrc.backup12"):
        (tmp_path / name).write_text("mine")
    (tmp_path / ".scores.tsv.abcd1234.tsv").write_text("of an earlier version")
    drafts = list_drafts(tmp_path, time.time() + 1)
    assert sorted(path.parent.name for path in drafts) == sorted(["kept", "maps", tmp_path.name])
    from langcortex.cache import atomic_write

    with atomic_write(tmp_path / "live.tsv") as draft:
        draft.write_text("x")
        assert remove_drafts(tmp_path, time.time() + 1) == drafts
        assert draft.exists()
    names = {path.name for path in tmp_path.rglob("*")}
    assert names == {
        ".gitignore",
        ".DS_Store",
        ".hidden.tsv",
        ".vimrc.backup12",
        "kept",
        "whole",
        "meta.json",
        "maps",
        "live.tsv",
    }


# studies


@pytest.fixture(scope="module")
def small(planted_corpus: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_corpus(tmp_path_factory.mktemp("small"), ("01",), runs=3)


def run_small(path: Path, out: Path, *overrides: str) -> dict[str, bytes]:
    results = run_study(read_study(path, [f"output={out}", *SMALL, *overrides]))
    write_tables(results, out)
    return tables(out)


SMALL = (
    "models=[]", "protocol.n_nulls=0", "protocol.confounds=[]", "design.delays=[4.0,6.0]",
    'features.controls=["duration","word_count"]',
)  # fmt: skip


def tables(out: Path) -> dict[str, bytes]:
    """Return the bytes of every file of the results but those of the kept ones."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] != "kept"
    }


@pytest.mark.parametrize(
    "kind",
    [
        "a byte",
        *(
            pytest.param(k, marks=pytest.mark.slow)
            for k in ("half", "none", "the next key's", "a link to itself")
        ),
    ],
)
def test_a_study_computes_again_what_is_damaged(kind: str, small: Path, tmp_path: Path, caplog) -> None:
    whole = run_small(small, tmp_path)
    kept = sorted((tmp_path / "kept").iterdir())
    assert {path.name.partition("-")[0] for path in kept} == {"delays", "fit"}
    for number in range(max(len(list(folder.iterdir())) for folder in kept)):
        damaged = 0
        for folder, after in zip(kept, [*kept[2:], kept[1], kept[1]], strict=False):
            files = sorted(folder.iterdir())
            damaged += number < len(files) and harm(files[number], after / files[number].name, kind)
        caplog.clear()
        assert run_small(small, tmp_path) == whole
        assert caplog.text.count("is computed again") == damaged
        assert verify_folders([tmp_path / "kept"])[0] == []


def harm(file: Path, other: Path, kind: str) -> bool:
    """Damage a file and return whether it differs now."""
    before = file.read_bytes()
    borrowed = other.read_bytes() if other.exists() else b"x"
    file.unlink()
    if kind == "a link to itself":
        loop(file)
    elif kind != "none":
        new = {"a byte": flipped(before), "half": before[: len(before) // 2], "the next key's": borrowed}[
            kind
        ]
        file.write_bytes(new)
        return new != before
    return True


def flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]


def test_a_table_that_becomes_empty_and_files_of_others(small: Path, tmp_path: Path, caplog) -> None:
    study = read_study(small, [f"output={tmp_path}", *SMALL])
    results = run_study(study)
    write_results(results, tmp_path)
    manifest = read_manifest(tmp_path)
    assert set(manifest.kept_results) == {path.name for path in (tmp_path / "kept").iterdir()}
    assert set(manifest.inputs["run"]) == {"story", "responses of 01"}
    assert set(manifest.files) == set(tables(tmp_path)) - {FILE}
    (tmp_path / "group.tsv").write_text("what\tp\nstale\t0.01\n")
    (tmp_path / "notes.txt").write_text("mine")
    stale = next(iter(sorted((tmp_path / "figures").glob("*.png"))))
    caplog.clear()
    write_results(results, tmp_path)
    assert (tmp_path / "group.tsv").read_text() == "what\tp\n"
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert stale.exists()
    assert "notes.txt" in caplog.text
    assert any("notes.txt" in w for w in json.loads((tmp_path / "summary.json").read_text())["warnings"])
    assert verify_folders([tmp_path])[0] == []
    (tmp_path / "scores.tsv").write_text("")
    assert len(verify_folders([tmp_path])[0]) == 1


def test_damaged_null_curves_and_a_damaged_manifest_cost_no_run(small: Path, tmp_path: Path, caplog) -> None:
    (tmp_path / "null_calibration.json").write_text("{")
    (tmp_path / FILE).write_text('{"files": 3}')
    results = run_study(read_study(small, [f"output={tmp_path}", *SMALL]))
    assert any("null_calibration.json cannot be read" in warning for warning in results.warnings)
    write_results(results, tmp_path)
    assert "is written anew" in caplog.text
    assert "scores.tsv" in read_manifest(tmp_path).files


def test_clean_lists_what_no_manifest_names(small: Path, tmp_path: Path, call, monkeypatch) -> None:
    monkeypatch.setenv("LANGCORTEX_CACHE", str(tmp_path / "cache"))
    Store(tmp_path / "cache" / "features").save("abc-layer-01", {"x": VALUES})
    out = tmp_path / "out"
    with pytest.raises(StoreError, match=r"has no manifest\.json"):
        list_leftovers([tmp_path])
    write_results(run_study(read_study(small, [f"output={out}", *SMALL])), out)
    Store(out / "kept").save("fit-stale", {"x": VALUES})
    (out / ".scores.tsv.abcd1234.tsv").write_text("draft")
    os.utime(out / ".scores.tsv.abcd1234.tsv", (1, 1))
    assert call("clean")[1].startswith("Give the results folders")
    code, listed, _ = call("clean", out)
    assert code == 0
    assert [name in listed for name in ("fit-stale", "abc-layer-01", ".scores.tsv", "--yes")] == [True] * 4
    assert (out / "kept" / "fit-stale").exists()
    assert "3 were removed" in call("clean", "--yes", out)[1]
    assert "Nothing is left over" in call("clean", out)[1]
    assert call("verify", out)[0] == 0
    fit = next((out / "kept").glob("fit-*/r.npy"))
    fit.write_bytes(flipped(fit.read_bytes()))
    code, listed, _ = call("verify", out)
    assert (code, len(listed.splitlines())) == (1, 1)
    assert call("verify", tmp_path / "nowhere")[0] == 2


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = Store(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(StoreError, match="could not be saved"):
            store.save("key", {"x": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_ends_the_study_before_it_begins(
    small: Path, tmp_path: Path, call
) -> None:
    (tmp_path / "file").write_text("")
    sets = [part for text in SMALL for part in ("--set", text)]
    code, _, said = call("run", small, "--set", f"output={tmp_path / 'file' / 'out'}", *sets)
    assert code == 2
    assert "cannot be made: Not a directory" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_errors_of_the_disk_are_one_sentence_anywhere(number: int, small: Path, call, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), "/somewhere")

    monkeypatch.setattr("langcortex.study.settings_file.read_study", fail)
    code, _, said = call("run", small)
    assert (code, len(said.splitlines())) == (2, 1)
    assert os.strerror(number) in said


RUN = [sys.executable, "-m", "langcortex.cli", "run"]


def start(path: Path, out: Path, cache: Path, *overrides: str) -> subprocess.Popen[str]:
    sets = [part for text in (f"output={out}", *overrides) for part in ("--set", text)]
    environment = {**os.environ, "LANGCORTEX_CACHE": str(cache)}
    return subprocess.Popen(
        [*RUN, str(path), *sets], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


MODEL = ("features.layers=[1,2]", "protocol.n_nulls=19", "design.delays=[4.0,6.0]")


@pytest.mark.slow
def test_sigterm_ends_a_run_like_ctrl_c(small: Path, tmp_path: Path) -> None:
    run = start(small, tmp_path / "out", tmp_path / "cache", *MODEL)
    while not (tmp_path / "out").exists() and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 143
    assert "Stopped. What was finished is kept" in said
    assert "Traceback" not in said
    assert list_drafts(tmp_path) == []


@pytest.mark.slow
def test_killed_runs_end_in_the_bytes_of_one_that_was_not(small: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    calm = start(small, tmp_path / "calm", tmp_path / "cache-calm", *MODEL)
    said = calm.communicate(timeout=600)[1]
    assert calm.returncode == 0, said
    seconds = time.monotonic() - begin
    rng = np.random.default_rng(17)
    n_killed = 0
    for _ in range(int(os.environ.get("LANGCORTEX_KILLS", "12"))):
        run = start(small, tmp_path / "out", tmp_path / "cache", *MODEL)
        try:
            said = run.communicate(timeout=rng.uniform(0.3, 1.0) * seconds)[1]
            assert run.returncode == 0, said
            shutil.rmtree(tmp_path / "out")
        except subprocess.TimeoutExpired:
            run.kill()
            run.communicate()
            n_killed += 1
    assert n_killed
    last = start(small, tmp_path / "out", tmp_path / "cache", *MODEL)
    said = last.communicate(timeout=600)[1]
    assert last.returncode == 0, said
    assert compare(tmp_path / "calm", tmp_path / "out") == []
    assert list_drafts(tmp_path) == []
    assert verify_folders([tmp_path / "out"])[0] == []


def compare(a: Path, b: Path) -> list[str]:
    """List the tables, maps and figures that differ; the folder's own name is in the settings of the summary and report."""
    first, second = tables(a), tables(b)
    names = sorted({*first, *second} - {"summary.json", "report.html", FILE})
    return [name for name in names if first.get(name) != second.get(name)]


@pytest.mark.slow
def test_damaged_features_are_extracted_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setenv("LANGCORTEX_CACHE", str(tmp_path / "cache"))
    settings = ("features.layers=[1,2]", "protocol.n_nulls=3", "design.delays=[6.0]")
    whole = []
    for number, kind in enumerate((None, "a byte", "half", "none")):
        out = tmp_path / f"out-{number}"
        arrays = sorted((tmp_path / "cache" / "features").rglob("*.npy"))
        damaged = sum(harm(file, file, kind) for file in arrays[::2]) if kind else 0
        caplog.clear()
        write_tables(run_study(read_study(small, [f"output={out}", *settings])), out)
        assert caplog.text.count("is computed again") == damaged
        whole.append({name: data for name, data in tables(out).items() if name != "summary.json"})
    assert all(other == whole[0] for other in whole)


@pytest.mark.slow
def test_threads_change_no_byte(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = []
    for jobs in (1, 4):
        monkeypatch.setenv("LANGCORTEX_CACHE", str(tmp_path / f"cache-{jobs}"))
        out = tmp_path / "out"
        settings = (f"output={out}", f"jobs={jobs}", "features.layers=[1,2]", "protocol.n_nulls=19")
        write_results(run_study(read_study(small, settings)), out)
        whole.append(
            (tables(out), {p.relative_to(out): p.read_bytes() for p in (out / "kept").rglob("*.npy")})
        )
        shutil.rmtree(out)
    assert [name for name in whole[0][0] if whole[0][0][name] != whole[1][0].get(name)] == []
    assert whole[0] == whole[1]
