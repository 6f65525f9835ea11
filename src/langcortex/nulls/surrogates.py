"""Surrogate responses, which no stimulus explains but which are as autocorrelated as the true ones: all random draws are here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from langcortex.arrays import run_slices
from langcortex.errors import FitError

KINDS = ("shift", "block", "phase")
MIN_SHIFT = 0.1  # share of a run: a smaller shift would leave neighbours beside each other
BLOCK = 10  # rows: 20 s at a TR of 2 s
MIN_PHASE_ROWS = 8  # per run: with fewer, hardly a phase is free

Draw = Callable[[np.ndarray], np.ndarray]


def draw_null(kind: str, run: np.ndarray, rng: np.random.Generator, *, block: int = BLOCK) -> Draw:
    """Draw one null: a function that changes every array of these rows in the same way.

    It may be applied to responses, to predictions or to features, of every subject who was played the same runs: the
    dependence between columns is kept, that on the other side is broken. Nothing crosses from one run to another.

    Parameters
    ----------
    kind : "shift" shifts each run circularly by a tenth to nine tenths of its length; "block" cuts each run into
        blocks of neighbouring rows and shuffles them; "phase" gives every frequency of a run a random phase,
        the same for all columns
    run : (n_rows,) the run of each row, the rows of a run together
    rng : the source of randomness
    block : rows per block, for "block": several times as long as responses are autocorrelated

    Returns
    -------
    (n_rows, …) → (n_rows, …): mean and variance of each run are kept. "shift" and "block" only move
    rows; "phase" returns float64.

    Raises
    ------
    FitError : an unknown kind, or a run with too few rows for it

    Notes
    -----
    All three keep the autocorrelation but for seams: one in each run for "shift" and "phase" (the end of a run counts
    as next to its beginning), one between any two blocks for "block". Seams make a test liberal where runs, or
    blocks, are only a few times longer than the autocorrelation of the responses. "phase" also makes the values Gaussian.

    References
    ----------
    Theiler et al. 1992, doi:10.1016/0167-2789(92)90102-S; Prichard & Theiler 1994,
    doi:10.1103/PhysRevLett.73.951 (the same phases for all columns); Künsch 1989, doi:10.1214/aos/1176347265 (blocks)
    """
    check_null(kind, run, block)
    if kind == "phase":
        factors = draw_spectral_factors(kind, run, 1, rng)
        return lambda values: multiply_spectra(values, factors)
    rows = shift_rows(run, rng) if kind == "shift" else shuffle_blocks(run, rng, block)
    return lambda values: values[rows]


def check_null(kind: str, run: np.ndarray, block: int) -> None:
    """Raise for an unknown kind of null, and for runs with too few rows for it."""
    if kind not in KINDS:
        raise FitError(f"A null is one of {', '.join(KINDS)}; not '{kind}'.")
    fewest = {"shift": 3, "block": 4 * block, "phase": MIN_PHASE_ROWS}[kind]
    for rows in run_slices(run):
        if rows.stop - rows.start < fewest:
            blocks = f" and blocks of {block}" if kind == "block" else ""
            raise FitError(
                f"Run '{run[rows.start]}' has {rows.stop - rows.start} rows; a null of kind '{kind}'{blocks} needs at least "
                f"{fewest}. Use longer runs, shorter blocks or another kind."
            )


# shifts


def draw_shifts(n: int, n_nulls: int, rng: np.random.Generator) -> np.ndarray:
    """Draw circular shifts of a run of `n` rows, from a tenth to nine tenths of it: (n_nulls,) in rows, from 1 to n − 1."""
    rows = np.round(rng.uniform(MIN_SHIFT, 1 - MIN_SHIFT, n_nulls) * n).astype(int)
    return np.asarray(np.clip(rows, 1, n - 1))


def shift_rows(run: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift each run circularly: (n_rows,) row numbers.

    >>> shift_rows(np.array(["a"] * 4), np.random.default_rng(0))
    array([2, 3, 0, 1])
    """
    order = np.empty(len(run), dtype=np.intp)
    for rows in run_slices(run):
        n = rows.stop - rows.start
        order[rows] = rows.start + (np.arange(n) - draw_shifts(n, 1, rng)) % n
    return order


# phases


def draw_phases(n: int, n_nulls: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a phase for every frequency of a run of `n` rows, null by null: (n_nulls, n_frequencies) factors of ``rfft``."""
    factors: np.ndarray = np.exp(2j * np.pi * rng.random((n_nulls, n // 2 + 1)))
    factors[:, 0] = 1.0
    if n % 2 == 0:  # the highest frequency of an even number of rows is real
        factors[:, -1] = rng.choice([-1.0, 1.0], n_nulls)
    return factors


def draw_phases_by_frequency(n: int, n_nulls: int, rng: np.random.Generator) -> np.ndarray:
    """Draw phases as `draw_phases` does, frequency by frequency: a run of other length has the same ones at low frequencies."""
    factors: np.ndarray = np.exp(2j * np.pi * rng.random((n // 2 + 1, n_nulls))).T.copy()
    factors[:, 0] = 1.0
    if n % 2 == 0:
        factors[:, -1] = np.where(factors[:, -1].real < 0, -1.0, 1.0)
    return factors


def draw_spectral_factors(
    kind: str, run: np.ndarray, n_nulls: int, rng: np.random.Generator
) -> list[tuple[slice, np.ndarray]]:
    """Draw nulls of kind "shift" or "phase" as factors of the spectrum of each run.

    Returns
    -------
    for each run its rows, and (n_nulls, n_frequencies) complex factors of length 1 for ``np.fft.rfft``
    """
    check_null(kind, run, 1)
    factors = []
    for rows in run_slices(run):
        n = rows.stop - rows.start
        if kind == "shift":
            shifts = draw_shifts(n, n_nulls, rng)
            factors.append((rows, np.exp(-2j * np.pi / n * (shifts[:, None] * np.arange(n // 2 + 1) % n))))
        else:
            factors.append((rows, draw_phases(n, n_nulls, rng)))
    return factors


def multiply_spectra(values: np.ndarray, factors: Sequence[tuple[slice, np.ndarray]]) -> np.ndarray:
    """Multiply the spectrum of every column of each run by the factors of the first null: float64."""
    out = np.empty(values.shape, dtype=np.float64)
    for rows, run_factors in factors:
        spectrum = np.fft.rfft(values[rows].astype(np.float64), axis=0)
        spectrum *= run_factors[0].reshape(-1, *[1] * (values.ndim - 1))
        out[rows] = np.fft.irfft(spectrum, rows.stop - rows.start, axis=0)
    return out


# blocks


def shuffle_blocks(run: np.ndarray, rng: np.random.Generator, block: int = BLOCK) -> np.ndarray:
    """Shuffle blocks of neighbouring rows within each run, with a random first cut: (n_rows,) row numbers."""
    order = np.empty(len(run), dtype=np.intp)
    for rows in run_slices(run):
        numbers = np.arange(rows.start, rows.stop)
        blocks = np.split(numbers, np.arange(rng.integers(1, block + 1), len(numbers), block))
        # by keys, so that a run with a few more rows has its first blocks in the same order
        order[rows] = np.concatenate([blocks[i] for i in np.argsort(rng.random(len(blocks)))])
    return order


def cut_blocks(n: int, block: int) -> np.ndarray:
    """Cut rows into blocks of at least `block` rows, of at most two lengths, spread evenly: (n_blocks + 1,) edges.

    A block stays in its place where no other block is as long; so every length has several blocks, or, where a run cannot be
    cut so, all blocks have the same length and the last few rows stay.

    >>> cut_blocks(42, 10), cut_blocks(41, 10)
    (array([ 0, 10, 21, 31, 42]), array([ 0, 10, 20, 30, 40, 41]))
    """
    most = max(1, n // block)
    for n_blocks in range(most, max(1, most - 3), -1):
        if n % n_blocks not in (1, n_blocks - 1):
            return np.arange(n_blocks + 1) * n // n_blocks
    length = n // most
    return np.append(np.arange(most + 1) * length, n)


def draw_block_orders(
    run: np.ndarray, n_nulls: int, rng: np.random.Generator, block: int = BLOCK
) -> list[tuple[np.ndarray, int, np.ndarray]]:
    """Cut each run once by `cut_blocks`, and shuffle blocks among those of their length.

    Returns
    -------
    for each run and length: (n_blocks,) first rows of the blocks, their length, and (n_nulls, n_blocks) the block that every null
    puts in the place of each
    """
    orders = []
    for rows in run_slices(run):
        edges = rows.start + cut_blocks(rows.stop - rows.start, block)
        lengths = np.diff(edges)
        for length in np.unique(lengths):
            first = edges[:-1][lengths == length]
            orders.append((first, int(length), np.argsort(rng.random((n_nulls, len(first))), axis=1)))
    return orders
