"""Held-out predictions against moved responses, for every null: sums of entries of a table that is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import fft, sparse

from langcortex.arrays import chunks, run_slices
from langcortex.nulls.surrogates import BLOCK, check_null, draw_run_shifts, draw_shifts_of

AT_ONCE = 1024  # nulls at once

Nulls = Callable[[np.ndarray, Sequence[np.ndarray]], Iterator[tuple[int, np.ndarray]]]
"""From responses and the predictions of each layer to their products under every null, some nulls at a time:
(number of the first, (n, n_layers, n_targets))."""


def heldout_nulls(
    kind: str, run: np.ndarray, n_nulls: int, rng: np.random.Generator, block: int = BLOCK
) -> Nulls:
    """Draw nulls of held-out predictions.

    Σ_t moved(y)(t) q(t) is all that a correlation needs of a null, and it is a sum of few numbers:

    - "shift": of the products at one shift a run, which a Fourier transform gives for all shifts;
    - "block": of ⟨block a of y, block b of q⟩, one a block. All pairs of blocks of a run make a table;
      every null is a row of a sparse matrix with a one for each block (about as many additions as there are blocks);
    - "phase": a product with the cross-spectrum.

    Parameters
    ----------
    kind : "shift", "block" or "phase"
    run : (n_rows,) the run of each row, the rows of a run together
    n_nulls : how many
    rng : the source of randomness
    block : least rows in a block, for "block". A run is cut once, into blocks of this length and blocks one row longer;
        blocks trade places with blocks of their own length
    """
    check_null(kind, run, block)
    if kind == "phase":
        return _phases(run, n_nulls, rng)
    tables = [_blocks(run, n_nulls, rng, block)] if kind == "block" else [_shifts(run, n_nulls, rng)]

    def nulls(y: np.ndarray, q: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        every = [tables[0].products(y, one) for one in q]
        for group in chunks(n_nulls, AT_ONCE):
            pick = tables[0].pick[group.start : group.stop]
            yield group.start, np.stack([np.asarray(pick @ table) for table in every], axis=1)

    return nulls


@dataclass(frozen=True, eq=False)
class NullTable:
    """What nulls are sums of.

    Attributes
    ----------
    products : from responses and predictions, (n_rows, n) each, to the table: (n_entries, n)
    pick : (n_nulls, n_entries) sparse, 1 where an entry is added
    """

    products: Callable[[np.ndarray, np.ndarray], np.ndarray]
    pick: sparse.csr_array


def _pick(entries: np.ndarray, n_entries: int) -> sparse.csr_array:
    """Make ones at the entries of each null: (n_nulls, n_each) → (n_nulls, n_entries)."""
    ends = np.arange(0, entries.size + 1, entries.shape[1], dtype=np.int32)
    ones = np.ones(entries.size, dtype=np.float32)
    return sparse.csr_array((ones, entries.astype(np.int32).ravel(), ends), shape=(len(entries), n_entries))


def _shifts(run: np.ndarray, n_nulls: int, rng: np.random.Generator) -> NullTable:
    parts = run_slices(run)
    entries = np.stack(
        [part.start + draw_shifts_of(part.stop - part.start, n_nulls, rng) for part in parts], axis=1
    )

    def products(y: np.ndarray, q: np.ndarray) -> np.ndarray:
        out = np.empty_like(y)
        for part in parts:
            cross = fft.rfft(q[part], axis=0)
            cross *= np.conj(fft.rfft(y[part], axis=0))
            out[part] = fft.irfft(cross, part.stop - part.start, axis=0, overwrite_x=True)
        return out

    return NullTable(products, _pick(entries, len(run)))


def cut_blocks(n: int, block: int) -> np.ndarray:
    """Cut rows into blocks of at least `block` rows, of at most two lengths, spread evenly: (n_blocks + 1,) edges.

    A block stays in its place where no other is as long; so a length has several blocks, or, where a run cannot be cut
    so, all blocks are of one length and the last few rows stay.

    >>> cut_blocks(42, 10), cut_blocks(41, 10)
    (array([ 0, 10, 21, 31, 42]), array([ 0, 10, 20, 30, 40, 41]))
    """
    most = max(1, n // block)
    for count in range(most, max(1, most - 3), -1):
        if n % count not in (1, count - 1):
            return np.arange(count + 1) * n // count
    length = n // most
    return np.append(np.arange(most + 1) * length, n)


def draw_orders(
    run: np.ndarray, n_nulls: int, rng: np.random.Generator, block: int = BLOCK
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Shuffle blocks among those of their length.

    Returns
    -------
    of each run and length: first rows of the blocks (with the length as the last number), and for every null the block
    that stands in the place of each: (n_nulls, n_blocks)
    """
    out = []
    for part in run_slices(run):
        edges = part.start + cut_blocks(part.stop - part.start, block)
        length = np.diff(edges)
        for one in np.unique(length):
            first = edges[:-1][length == one]
            order = np.argsort(rng.random((n_nulls, len(first))), axis=1)
            out.append((np.append(first, one), order))
    return out


class BlockNulls(NamedTuple):
    """Blocks that trade places, as arrays: of each run and length a table of all pairs of its blocks.

    The entry `begin + b · size + a` of a table is Σ_t y(t of block a) q(t of block b).

    Attributes
    ----------
    edges : (n_runs + 1,) first rows of the runs, and the number of rows
    first : (n_blocks,) first rows of the blocks, table by table
    length : (n_tables,) rows in a block
    since : (n_tables + 1,) where the blocks of a table begin in `first`
    begins : (n_tables + 1,) where a table begins among all entries
    entries : (n_nulls, n_blocks) int32, the entries that a null adds up, table by table
    """

    edges: np.ndarray
    first: np.ndarray
    length: np.ndarray
    since: np.ndarray
    begins: np.ndarray
    entries: np.ndarray


def draw_blocks(run: np.ndarray, n_nulls: int, rng: np.random.Generator, block: int = BLOCK) -> BlockNulls:
    """Shuffle blocks among those of their length, see `heldout_nulls` and `draw_orders`."""
    check_null("block", run, block)
    orders = draw_orders(run, n_nulls, rng, block)
    sizes = np.array([order.shape[1] for _, order in orders])
    begins = np.append(0, np.cumsum(sizes**2))
    each = [b + np.arange(n) * n + order for b, n, (_, order) in zip(begins[:-1], sizes, orders, strict=True)]
    return BlockNulls(
        np.array([0, *(part.stop for part in run_slices(run))]),
        np.concatenate([where[:-1] for where, _ in orders]),
        np.array([where[-1] for where, _ in orders]),
        np.append(0, np.cumsum(sizes)),
        begins,
        np.concatenate(each, axis=1).astype(np.int32),
    )


def _blocks(run: np.ndarray, n_nulls: int, rng: np.random.Generator, block: int) -> NullTable:
    drawn = draw_blocks(run, n_nulls, rng, block)
    starts = np.split(drawn.first, drawn.since[1:-1])

    def products(y: np.ndarray, q: np.ndarray) -> np.ndarray:
        out = np.empty((drawn.begins[-1], y.shape[1]), dtype=y.dtype)
        for begin, first, length in zip(drawn.begins[:-1], starts, drawn.length, strict=True):
            rows = first[:, None] + np.arange(length)
            # a block of q stays where it is, and meets every block of y: (n, size, length) times (n, length, size)
            each = np.matmul(q[rows].transpose(2, 0, 1), y[rows].transpose(2, 1, 0))
            out[begin : begin + len(first) ** 2] = each.reshape(len(each), -1).T
        return out

    return NullTable(products, _pick(drawn.entries, int(drawn.begins[-1])))


def _phases(run: np.ndarray, n_nulls: int, rng: np.random.Generator) -> Nulls:
    turns = draw_run_shifts("phase", run, n_nulls, rng)

    def nulls(y: np.ndarray, q: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        cross = [(turn, [_cross_spectrum(y[part], one[part]) for one in q]) for part, turn in turns]
        for group in chunks(n_nulls, AT_ONCE):
            total = np.zeros((group.stop - group.start, len(q), y.shape[1]), dtype=y.dtype)
            for turn, spectra in cross:
                even, odd = (a[group].astype(y.dtype) for a in (turn.real, turn.imag))
                for i, c in enumerate(spectra):
                    total[:, i] += even @ c.real - odd @ c.imag
            yield group.start, total

    return nulls


def _cross_spectrum(y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Give C with Σ_t y(t) q(t) = Re Σ_f C(f): (n_frequencies, n_targets) complex."""
    n = len(y)
    weight = np.full(n // 2 + 1, 2.0 / n)
    weight[0] = 1.0 / n
    if n % 2 == 0:
        weight[-1] = 1.0 / n
    out: np.ndarray = fft.rfft(y, axis=0) * np.conj(fft.rfft(q, axis=0)) * weight[:, None].astype(y.dtype)
    return out
