"""Compare the numbers of this tree with those of another commit, byte by byte.

    python tools/golden.py --against COMMIT [--quick] [--only NAME,...] [--keep FOLDER]

The commit is checked out for a while, and `golden_items.py` of this tree runs in both trees, each with its own package and
its own cache of features. One line per item says "same", "DIFFERS" with the largest absolute difference, or "missing". The
exit code is 1 where anything differs, is missing or failed. ``--quick`` leaves out reports, the demo and ``examples/alice``.

Names that differ between the trees are looked up in one table at the top of `golden_items.py`: correct them there.
Compiled code is kept in the temporary folder between calls, by the bytes of what is compiled; the first call, and the first
after those change, takes a minute longer per tree.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = Path(tempfile.gettempdir()) / "langcortex-golden"
QUICK = ("designs", "fits", "nulls", "heldout", "joint", "tests", "ceilings", "studies")
SLOW = ("reports", "demo", "alice")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check a commit out into a worktree that is removed afterwards."""
    git = ("git", "-C", str(ROOT))
    parsed = subprocess.run((*git, "rev-parse", f"{commit}^{{commit}}"), capture_output=True, text=True)
    if parsed.returncode:
        raise SystemExit(f"git knows no commit '{commit}'.")
    commit = parsed.stdout.strip()
    SCRATCH.mkdir(exist_ok=True)
    # the same path at every call from this tree, because compiled code is kept by path
    tree = SCRATCH / f"{commit[:12]}-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
    if tree.exists():  # another call uses it
        tree = Path(tempfile.mkdtemp(dir=SCRATCH, prefix=f"{tree.name}-"))
    subprocess.run((*git, "worktree", "add", "--quiet", "--detach", str(tree), commit), check=True)
    try:
        for path in tree.glob("src/**/*.py"):  # and by the time of its source
            os.utime(path, (0, 0))
        yield tree
    finally:
        subprocess.run((*git, "worktree", "remove", "--force", str(tree)), check=True)


def compiled_folder(tree: Path) -> Path:
    """Return where the compiled code of a tree is kept: another folder wherever a source of it differs."""
    state = hashlib.sha256()
    for path in sorted(tree.glob("src/**/*.py")):
        content = path.read_bytes()
        if b"jit" in content:
            state.update(str(path.relative_to(tree)).encode() + content)
    return SCRATCH / "compiled" / state.hexdigest()[:16]


def write_items(tree: Path, names: Sequence[str], folder: Path) -> bool:
    """Write the items of one tree, in a process of its own; return whether all could be made."""
    path = os.pathsep.join(part for part in (str(tree / "src"), os.environ.get("PYTHONPATH")) if part)
    script = ROOT / "tools" / "golden_items.py"
    with tempfile.TemporaryDirectory() as cache:
        added = {"PYTHONPATH": path, "LANGCORTEX_CACHE": cache, "NUMBA_CACHE_DIR": str(compiled_folder(tree))}
        command = (sys.executable, str(script), str(tree), str(folder), *names)
        return subprocess.run(command, env={**os.environ, **ONE_THREAD, **added}).returncode == 0


def difference(before: np.ndarray, after: np.ndarray) -> str:
    """Return how two arrays differ; nothing where type, shape and every byte are the same."""
    if (before.dtype, before.shape) != (after.dtype, after.shape):
        return f"{before.dtype} {before.shape} became {after.dtype} {after.shape}"
    if before.tobytes() == after.tobytes():
        return ""
    if before.dtype.kind in "fc":
        with np.errstate(invalid="ignore"):
            largest = np.nanmax(np.abs(before - after), initial=0.0)
        undefined = int((np.isnan(before) != np.isnan(after)).sum())
        return f"by {largest:.3g}" + (f" and {undefined} NaN" if undefined else "")
    return f"in {int((before != after).sum())} of {before.size}"


def compare_item(before: Path, after: Path) -> str:
    """Return what became of one item."""
    for path, side in ((before, "before"), (after, "after")):
        if not path.is_file():
            return f"missing {side}"
    with np.load(before) as first, np.load(after) as second:
        differences = []
        for name in dict.fromkeys((*first, *second)):
            if name in first and name in second:
                what = difference(first[name], second[name])
            else:
                what = f"missing {'after' if name in first else 'before'}"
            differences += [f"{name.strip('/')} {what}".strip()] if what else []
    more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
    return f"DIFFERS: {'; '.join(differences[:3])}{more}" if differences else "same"


def compare_trees(commit: str, names: Sequence[str], folder: Path) -> int:
    """Compare a commit with this tree; return 1 where anything differs."""
    sides = (folder / "before", folder / "after")
    with checked_out(commit) as tree:
        complete = [write_items(t, names, side) for t, side in zip((tree, ROOT), sides, strict=True)]
    paths = sorted({path.relative_to(side) for side in sides for path in side.rglob("*.npz")})
    count = {"same": 0, "DIFFERS": 0, "missing": 0}
    for path in paths:
        what = compare_item(*(side / path for side in sides))
        count[what.split()[0].rstrip(":")] += 1
        print(f"{path.with_suffix('')}: {what}")
    print(f"{len(paths)} items: {', '.join(f'{n} {word}' for word, n in count.items())}.")
    for done, side in zip(complete, sides, strict=True):
        if not done:
            print(f"Not everything could be made {side.name}: see the errors above.")
    return int(not paths or count["same"] < len(paths) or not all(complete))


def main() -> int:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--against", required=True, help="the commit to compare with")
    parser.add_argument("--quick", action="store_true", help=f"leave out {', '.join(SLOW)}")
    parser.add_argument("--only", default="", help=f"some of {', '.join((*QUICK, *SLOW))}")
    parser.add_argument(
        "--keep", type=Path, help="keep what was written in this folder, which must be empty or new"
    )
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else QUICK if arguments.quick else (*QUICK, *SLOW)
    unknown = set(names) - {*QUICK, *SLOW}
    if unknown:
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        if any(arguments.keep.iterdir()):
            parser.error(f"{arguments.keep} is not empty")
        return compare_trees(arguments.against, names, arguments.keep.resolve())
    with tempfile.TemporaryDirectory() as folder:
        return compare_trees(arguments.against, names, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
