"""Responses that carry no story and are as slow as the true ones: one draw, the same for all targets and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from langcortex.arrays import run_slices
from langcortex.errors import FitError

KINDS = ("shift", "block", "phase")
LEAST = 0.1  # of a run: a smaller shift would leave neighbours beside each other
BLOCK = 10  # rows: 20 s at a TR of 2 s
FEWEST = 8  # rows a run: with fewer, hardly a phase is free

Draw = Callable[[np.ndarray], np.ndarray]


def draw_null(kind: str, run: np.ndarray, rng: np.random.Generator, *, block: int = BLOCK) -> Draw:
    """Draw one null: a function that does the same to every array of these rows.

    It may be applied to responses, to predictions or to features, of every subject who heard the same runs: what
    columns have in common is kept, what they have to do with the other side is broken. Nothing crosses from one
    run to another.

    Parameters
    ----------
    kind : "shift" turns each run on itself by a tenth to nine tenths of its length; "block" cuts each run into
        blocks of neighbouring rows and shuffles them; "phase" gives every frequency of a run a random phase,
        the same for all columns
    run : (n_rows,) the run of each row, the rows of a run together
    rng : the source of randomness
    block : rows in a block, for "block": several times the memory of the responses

    Returns
    -------
    (n_rows, …) → (n_rows, …): a mean and a variance in each run stay what they were. "shift" and "block" only move
    rows; "phase" gives float64.

    Raises
    ------
    FitError : an unknown kind, or a run with too few rows for it

    Notes
    -----
    All three keep the autocorrelation but for a seam: one in each run for "shift" and "phase" (a run's end counts
    as next to its beginning), one between any two blocks for "block". Seams make a test liberal where runs, or
    blocks, are only a few times longer than the memory of the responses. "phase" also makes the values Gaussian.

    References
    ----------
    Theiler et al. 1992, doi:10.1016/0167-2789(92)90102-S; Prichard & Theiler 1994,
    doi:10.1103/PhysRevLett.73.951 (the same phases for all columns); Künsch 1989, doi:10.1214/aos/1176347265 (blocks)
    """
    check_null(kind, run, block)
    if kind == "phase":
        turns = draw_run_shifts(kind, run, 1, rng)
        return lambda values: _turned(values, turns)
    rows = shifted_rows(run, rng) if kind == "shift" else block_rows(run, rng, block)
    return lambda values: values[rows]


def shifted_rows(run: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn each run on itself: (n_rows,) row numbers.

    >>> shifted_rows(np.array(["a"] * 4), np.random.default_rng(0))
    array([2, 3, 0, 1])
    """
    rows = np.empty(len(run), dtype=np.intp)
    for part in run_slices(run):
        n = part.stop - part.start
        rows[part] = part.start + (np.arange(n) - _shift(n, rng)) % n
    return rows


def block_rows(run: np.ndarray, rng: np.random.Generator, block: int = BLOCK) -> np.ndarray:
    """Shuffle blocks of neighbouring rows within each run, cut at another place each time: (n_rows,) row numbers."""
    rows = np.empty(len(run), dtype=np.intp)
    for part in run_slices(run):
        here = np.arange(part.start, part.stop)
        pieces = np.split(here, np.arange(rng.integers(1, block + 1), len(here), block))
        # by keys, so that a run with a few more rows has its first blocks in the same order
        rows[part] = np.concatenate([pieces[i] for i in np.argsort(rng.random(len(pieces)))])
    return rows


def draw_run_shifts(
    kind: str, run: np.ndarray, n_nulls: int, rng: np.random.Generator
) -> list[tuple[slice, np.ndarray]]:
    """Draw nulls of kind "shift" or "phase" as what they do to each frequency of each run.

    Returns
    -------
    one (rows of the run, (n_nulls, n_frequencies) complex of length 1) a run: the factors of ``np.fft.rfft``
    """
    check_null(kind, run, 1)
    turns = []
    for part in run_slices(run):
        n = part.stop - part.start
        if kind == "shift":
            shift = draw_shifts_of(n, n_nulls, rng)
            turn = np.exp(-2j * np.pi / n * (shift[:, None] * np.arange(n // 2 + 1) % n))
        else:
            turn = np.exp(2j * np.pi * rng.random((n_nulls, n // 2 + 1)))
            turn[:, 0] = 1.0
            if n % 2 == 0:  # the highest frequency of an even number of rows is real
                turn[:, -1] = rng.choice([-1.0, 1.0], n_nulls)
        turns.append((part, turn))
    return turns


def _turned(values: np.ndarray, turns: Sequence[tuple[slice, np.ndarray]]) -> np.ndarray:
    """Apply the first of some turns to every column of every run."""
    out = np.empty(values.shape, dtype=np.float64)
    for part, turn in turns:
        spectrum = np.fft.rfft(values[part].astype(np.float64), axis=0)
        spectrum *= turn[0].reshape(-1, *[1] * (values.ndim - 1))
        out[part] = np.fft.irfft(spectrum, part.stop - part.start, axis=0)
    return out


def draw_shifts_of(n: int, n_nulls: int, rng: np.random.Generator) -> np.ndarray:
    """Draw shifts of a run of `n` rows, from a tenth to nine tenths of it, in rows: (n_nulls,)."""
    return np.array([_shift(n, rng) for _ in range(n_nulls)])


def _shift(n: int, rng: np.random.Generator) -> int:
    return min(max(round(rng.uniform(LEAST, 1 - LEAST) * n), 1), n - 1)


def check_null(kind: str, run: np.ndarray, block: int) -> None:
    """Refuse an unknown kind of null, and runs with too few rows for it."""
    if kind not in KINDS:
        raise FitError(f"A null is one of {', '.join(KINDS)}; not '{kind}'.")
    fewest = {"shift": 3, "block": 4 * block, "phase": FEWEST}[kind]
    for part in run_slices(run):
        if part.stop - part.start < fewest:
            what = f" and blocks of {block}" if kind == "block" else ""
            raise FitError(
                f"Run '{run[part.start]}' has {part.stop - part.start} rows; a null of kind '{kind}'{what} needs at least "
                f"{fewest}. Use longer runs, shorter blocks or another kind."
            )
