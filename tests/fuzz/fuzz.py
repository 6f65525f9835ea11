"""Read damaged files of every kind, in a process whose memory and time are bounded.

    python tests/fuzz/fuzz.py [--kinds KIND,...] [--n 2000] [--seed 0] [--keep FOLDER]

A reader may read a damaged file or refuse it in the project's own words. Anything else is printed, with the damaged file
kept in FOLDER, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
from readers import READERS, mutate

SECONDS = 10  # that one file may take
BUDGET = 400e6  # bytes above what the process has when its libraries are loaded


class TooSlow(BaseException):
    """A reader took longer than a file of a few kilobytes may."""


def _stop(*_: object) -> None:
    raise TooSlow


def read_damaged(kind: str, number: int, seed: int, folder: Path) -> tuple[str, Path] | None:
    """Damage one valid file and read it; return what went wrong and the file, or None."""
    from langcortex.errors import LangcortexError

    reader = READERS[kind]
    rng = np.random.default_rng([seed, number, *kind.encode()])
    content = reader.make(rng)
    if reader.ending.endswith(".gz") and rng.random() < 0.5:
        import gzip

        content = gzip.compress(mutate(gzip.decompress(content), rng), mtime=0)
    else:
        content = mutate(content, rng)
    path = folder / f"{kind}-{number}{reader.ending}"
    path.write_bytes(content)
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        reader.read(path)
    except LangcortexError as error:
        if not str(error).strip() or len(str(error)) > 2000:
            return f"an error of {len(str(error))} characters", path
    except TooSlow:
        return f"longer than {SECONDS} s", path
    except BaseException:
        return traceback.format_exc(limit=-6), path
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    path.unlink()
    return None


def bound_memory() -> None:
    """Forbid this process more memory than it has now and the budget."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(BUDGET)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def run_kind(kind: str, n: int, seed: int, folder: Path) -> int:
    """Fuzz one reader in this process; print every failure, and return how many there were."""
    warnings.simplefilter("ignore")
    reader = READERS[kind]
    valid = folder / f"valid{reader.ending}"
    valid.write_bytes(reader.make(np.random.default_rng(0)))
    reader.read(valid)  # a valid file is read, and libraries are loaded
    bound_memory()
    failures: dict[str, int] = {}
    for number in range(n):
        failure = read_damaged(kind, number, seed, folder)
        if failure:
            last = failure[0].strip().splitlines()[-1][:100]
            failures[last] = failures.get(last, 0) + 1
            if failures[last] == 1:
                print(f"{kind} {number} ({failure[1]}):\n{failure[0]}", flush=True)
    print(f"{kind}: {n} files, {sum(failures.values())} failures {failures or ''}", flush=True)
    return sum(failures.values())


def main() -> int:
    """Read the command line and fuzz each kind in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kinds", default=",".join(READERS))
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.inside:
            return min(1, run_kind(kinds[0], options.n, options.seed, folder))
        command = [sys.executable, __file__, "--inside", "--n", str(options.n), "--seed", str(options.seed)]
        codes = [
            subprocess.run([*command, "--kinds", kind, "--keep", str(folder)], check=False).returncode
            for kind in kinds
        ]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
