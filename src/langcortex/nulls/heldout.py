"""Products of held-out predictions with surrogate responses, for every null: sums of entries of a table that is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import fft, sparse

from langcortex.arrays import chunks, run_slices
from langcortex.nulls.surrogates import (
    BLOCK,
    check_null,
    draw_block_orders,
    draw_shifts,
    draw_spectral_factors,
)

BATCH = 1024  # nulls at a time

HeldoutNulls = Callable[[np.ndarray, Sequence[np.ndarray]], Iterator[tuple[int, np.ndarray]]]
"""From responses and the predictions of each layer to their products under every null, a batch of nulls at a time:
(number of the first, (n, n_layers, n_targets))."""


def heldout_nulls(
    kind: str, run: np.ndarray, n_nulls: int, rng: np.random.Generator, block: int = BLOCK
) -> HeldoutNulls:
    """Draw nulls of held-out predictions.

    Σ_t surrogate(y)(t) q(t) is all that a correlation needs of a null, and it is a sum of few numbers:

    - "shift": of the products at one shift per run; a Fourier transform computes those at all shifts;
    - "block": of ⟨block a of y, block b of q⟩, one per block. All pairs of blocks of a run make a table;
      every null is a row of a sparse matrix with a one for each block (about as many additions as there are blocks);
    - "phase": a product with the cross-spectrum.

    Parameters
    ----------
    kind : "shift", "block" or "phase"
    run : (n_rows,) the run of each row, the rows of a run together
    n_nulls : how many
    rng : the source of randomness
    block : the fewest rows per block, for "block". A run is cut once, into blocks of this length and blocks one row longer;
        blocks trade places with blocks of their own length
    """
    check_null(kind, run, block)
    if kind == "phase":
        return _phase_nulls(run, n_nulls, rng)
    table = _block_table(run, n_nulls, rng, block) if kind == "block" else _shift_table(run, n_nulls, rng)

    def nulls(y: np.ndarray, q: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        products = [table.products(y, predicted) for predicted in q]
        for batch in chunks(n_nulls, BATCH):
            selection = table.selection[batch.start : batch.stop]
            yield batch.start, np.stack([np.asarray(selection @ entries) for entries in products], axis=1)

    return nulls


@dataclass(frozen=True, eq=False)
class NullTable:
    """A table whose entries add up to the products of every null.

    Attributes
    ----------
    products : from responses and predictions, (n_rows, n) each, to the table: (n_entries, n)
    selection : (n_nulls, n_entries) sparse, 1 where an entry is added
    """

    products: Callable[[np.ndarray, np.ndarray], np.ndarray]
    selection: sparse.csr_array


def _selection(entries: np.ndarray, n_entries: int) -> sparse.csr_array:
    """Return ones at the entries of each null: (n_nulls, n_added) → (n_nulls, n_entries)."""
    ends = np.arange(0, entries.size + 1, entries.shape[1], dtype=np.int32)
    ones = np.ones(entries.size, dtype=np.float32)
    return sparse.csr_array((ones, entries.astype(np.int32).ravel(), ends), shape=(len(entries), n_entries))


def _shift_table(run: np.ndarray, n_nulls: int, rng: np.random.Generator) -> NullTable:
    runs = run_slices(run)
    entries = np.stack(
        [rows.start + draw_shifts(rows.stop - rows.start, n_nulls, rng) for rows in runs], axis=1
    )

    def products(y: np.ndarray, q: np.ndarray) -> np.ndarray:
        out = np.empty_like(y)
        for rows in runs:
            cross = fft.rfft(q[rows], axis=0)
            cross *= np.conj(fft.rfft(y[rows], axis=0))
            out[rows] = fft.irfft(cross, rows.stop - rows.start, axis=0, overwrite_x=True)
        return out

    return NullTable(products, _selection(entries, len(run)))


class BlockNulls(NamedTuple):
    """Blocks that trade places, as arrays: for each run and length of block a table of all pairs of its blocks.

    The entry `table_begins[i] + b · n_blocks + a` of table i is Σ_t y(t of block a) q(t of block b).

    Attributes
    ----------
    edges : (n_runs + 1,) first rows of the runs, and the number of rows
    first : (n_blocks,) first rows of the blocks, table by table
    length : (n_tables,) rows per block
    block_begins : (n_tables + 1,) where the blocks of a table begin in `first`
    table_begins : (n_tables + 1,) where a table begins among all entries
    entries : (n_nulls, n_blocks) int32, the entries that a null adds up, table by table
    """

    edges: np.ndarray
    first: np.ndarray
    length: np.ndarray
    block_begins: np.ndarray
    table_begins: np.ndarray
    entries: np.ndarray


def draw_blocks(run: np.ndarray, n_nulls: int, rng: np.random.Generator, block: int = BLOCK) -> BlockNulls:
    """Shuffle blocks among those of their length, see `heldout_nulls` and `langcortex.nulls.surrogates.draw_block_orders`."""
    check_null("block", run, block)
    orders = draw_block_orders(run, n_nulls, rng, block)
    sizes = np.array([len(first) for first, _, _ in orders])
    table_begins = np.append(0, np.cumsum(sizes**2))
    entries = [
        begin + np.arange(size) * size + order
        for begin, size, (_, _, order) in zip(table_begins[:-1], sizes, orders, strict=True)
    ]
    return BlockNulls(
        np.array([0, *(rows.stop for rows in run_slices(run))]),
        np.concatenate([first for first, _, _ in orders]),
        np.array([length for _, length, _ in orders]),
        np.append(0, np.cumsum(sizes)),
        table_begins,
        np.concatenate(entries, axis=1).astype(np.int32),
    )


def _block_table(run: np.ndarray, n_nulls: int, rng: np.random.Generator, block: int) -> NullTable:
    blocks = draw_blocks(run, n_nulls, rng, block)
    firsts = np.split(blocks.first, blocks.block_begins[1:-1])

    def products(y: np.ndarray, q: np.ndarray) -> np.ndarray:
        out = np.empty((blocks.table_begins[-1], y.shape[1]), dtype=y.dtype)
        for begin, first, length in zip(blocks.table_begins[:-1], firsts, blocks.length, strict=True):
            rows = first[:, None] + np.arange(length)
            # every block of q with every block of y: (n, n_blocks, length) times (n, length, n_blocks)
            pairs = np.matmul(q[rows].transpose(2, 0, 1), y[rows].transpose(2, 1, 0))
            out[begin : begin + len(first) ** 2] = pairs.reshape(len(pairs), -1).T
        return out

    return NullTable(products, _selection(blocks.entries, int(blocks.table_begins[-1])))


def _phase_nulls(run: np.ndarray, n_nulls: int, rng: np.random.Generator) -> HeldoutNulls:
    factors = draw_spectral_factors("phase", run, n_nulls, rng)

    def nulls(y: np.ndarray, q: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        spectra = [
            (phases, [_cross_spectrum(y[rows], predicted[rows]) for predicted in q])
            for rows, phases in factors
        ]
        for batch in chunks(n_nulls, BATCH):
            total = np.zeros((batch.stop - batch.start, len(q), y.shape[1]), dtype=y.dtype)
            for phases, of_layers in spectra:
                even, odd = (a[batch].astype(y.dtype) for a in (phases.real, phases.imag))
                for layer, spectrum in enumerate(of_layers):
                    total[:, layer] += even @ spectrum.real - odd @ spectrum.imag
            yield batch.start, total

    return nulls


def _cross_spectrum(y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return C with Σ_t y(t) q(t) = Re Σ_f C(f): (n_frequencies, n_targets) complex."""
    n = len(y)
    weight = np.full(n // 2 + 1, 2.0 / n)
    weight[0] = 1.0 / n
    if n % 2 == 0:
        weight[-1] = 1.0 / n
    out: np.ndarray = fft.rfft(y, axis=0) * np.conj(fft.rfft(q, axis=0)) * weight[:, None].astype(y.dtype)
    return out
