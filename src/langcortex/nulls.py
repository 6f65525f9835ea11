"""What chance gives: every run's responses shifted circularly against its features, and refitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from scipy import fft

from langcortex.design import Design
from langcortex.encoding import Encoding
from langcortex.engine import Against, Plan, Task, cut
from langcortex.folding import confounds_of, label_pieces, pieces_of, responses_in
from langcortex.metrics import pearson
from langcortex.plans import Plans, nest, plan_of
from langcortex.protocol import Protocol, outer_folds
from langcortex.ridge import chunks
from langcortex.timing import run_slices

TABLE_BYTES = 2**26  # memory for the products of one run's axes with its responses at every shift
FEWEST = 64  # targets below which such a table does not pay
CACHE_BYTES = 2**21  # memory for the products of the shifts that are handled together
AT_ONCE = 4  # shifts handled together
LONG = 100  # rows a run from which on a Fourier transform of all shifts beats a product a shift


def null_scores(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    share: Mapping[str, np.ndarray],
    pool: Executor | None = None,
    plans: Plans | None = None,
) -> np.ndarray:
    """Score what chance gives: every run's responses shifted circularly, training rows included, and refitted.

    Shifting held-out predictions alone is not enough when runs take turns: the weights that predict run k come
    from run j and the other way round, so the scores of two runs share a term, their mean varies more than that
    of independent runs (by √2 in standard deviation when nothing is there), and too many targets would be
    found. Refitting on the shifted responses carries that into the null.

    In long runs all shifts are read off one Fourier transform, so a shift costs no product with the responses.

    Parameters
    ----------
    spaces, encoding, share, pool, plans : see `null_chunks`

    Returns
    -------
    (n_nulls, n_targets) float32, mean r over pieces
    """
    n_nulls = len(next(iter(share.values())))
    out = np.full((n_nulls, design.space.n_targets), np.nan, dtype=np.float32)
    for chunk, null in null_chunks(design, spaces, protocol, encoding, share, pool, plans):
        out[:, chunk] = null
    return out


def null_chunks(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    share: Mapping[str, np.ndarray],
    pool: Executor | None = None,
    plans: Plans | None = None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Give the null of `null_scores` a chunk of targets at a time, so that no whole map of all nulls is needed.

    Parameters
    ----------
    spaces : (n_folds,) the feature space of each outer fold
    encoding : its penalties and delays are used again
    share : run → (n_nulls,) shift as a share of the run's rows
    pool : works on several chunks at once
    plans : where preparations of features are found again

    Yields
    ------
    chunk : a slice of targets
    null : (n_nulls, n) float32, mean r over pieces; NaN where a target has no score
    """
    folds = outer_folds(design.run, design.scans, protocol)
    labels, _ = label_pieces(design.run, folds)
    grid = np.sort(np.asarray(protocol.penalties))[::-1]
    runs = run_slices(design.run)
    shifts = [_in_rows(share[str(design.run[r.start])], r.stop - r.start) for r in runs]
    # the largest penalty stands in for targets without one, which are not defined anyway
    best = np.searchsorted(-grid, -np.nan_to_num(encoding.penalty, nan=grid[0]))
    sources = {float(d): design.Y[float(d)] for d in np.unique(encoding.delay)}

    def prepare(k: int) -> _Ridge:
        confounds = confounds_of(design, [spaces[k]], protocol)
        bare = nest(design, folds[k], pieces_of(labels, folds[k]).values(), protocol, inner=False)
        plan = plan_of(design, spaces[k], [bare], protocol, confounds, plans)
        return _Ridge(plan, cut([bare], confounds).c1, bare.train, bare.pieces)

    def one_chunk(chunk: slice) -> np.ndarray:
        total = np.zeros((len(shifts[0]), chunk.stop - chunk.start), dtype=np.float32)
        count = np.zeros(chunk.stop - chunk.start, dtype=np.float32)
        for k, ridge in enumerate(ridges):
            targets, y = responses_in(sources, encoding.delay[k], chunk)
            if len(targets):
                r, known = ridge.shifted(y, best[k, targets], runs, shifts)
                total[:, targets - chunk.start] += r
                count[targets - chunk.start] += known
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total / count)

    work = pool.map if pool else map
    ridges = list(work(prepare, range(len(folds))))
    longest = max(r.stop - r.start for r in runs)
    widest = max(ridge.width for ridge in ridges)
    most = min(TABLE_BYTES // (8 * longest), CACHE_BYTES // (4 * AT_ONCE)) // widest
    size = max(FEWEST, min(2048, most))
    parts = chunks(design.space.n_targets, size)
    yield from zip(parts, work(one_chunk, parts), strict=True)


def _in_rows(share: np.ndarray, n: int) -> np.ndarray:
    """Turn shares of a run into whole rows, never none and never all."""
    rows: np.ndarray = np.clip(np.round(share * n).astype(int), min(1, n - 1), n - 1)
    return rows


@dataclass(frozen=True, eq=False)
class _Ridge:
    """One outer fold's ridge, ready for shifted responses."""

    plan: Plan
    c1: np.ndarray
    train: np.ndarray
    pieces: tuple[np.ndarray, ...]

    @property
    def task(self) -> Task:
        return self.plan.tasks[self.plan.outer[0][0].task]

    @property
    def width(self) -> int:
        """How many products a row set takes: axes, ones and confounds."""
        return int(self.task.shrink.shape[1] + self.c1.shape[1])

    def shifted(
        self, y: np.ndarray, best: np.ndarray, runs: Sequence[slice], shifts: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Refit and score shifted responses: (n_nulls, n) sum of r over pieces, and (n,) how many are defined."""
        columns = np.hstack([self.plan.bases[:, self.task.basis], self.c1.astype(y.dtype)])
        fitted = _Products(columns, y, self.train, runs, shifts)
        held = [_Products(columns, y, rows, runs, shifts) for rows in self.pieces]
        total = np.zeros((len(shifts[0]), y.shape[1]), dtype=np.float32)
        defined = [self._defined(y[rows]) for rows in self.pieces]
        shrink = self.task.shrink.T.astype(y.dtype)[:, best]
        for group in chunks(len(total), AT_ONCE):
            weight, coef = self._fit(fitted.at(group), shrink)
            for one, products, rows, known in zip(
                self.plan.outer[0], held, self.pieces, defined, strict=True
            ):
                r = self._score(one, rows, products.at(group), products.power(group), weight, coef)
                total[group] += np.where(known, r, 0.0)
        return total, np.sum(defined, axis=0).astype(np.float32)

    def _fit(self, products: np.ndarray, shrink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give shrunk weights and the coefficients of mean and confounds: (n_group, ·, n)."""
        p = shrink.shape[0]
        c1 = self.c1[self.train]
        reader = np.linalg.pinv(c1.T @ c1).astype(products.dtype)
        return products[:, :p] * shrink, reader @ products[:, p:]

    def _score(
        self,
        one: Against,
        rows: np.ndarray,
        products: np.ndarray,
        power: np.ndarray,
        weight: np.ndarray,
        coef: np.ndarray,
    ) -> np.ndarray:
        """Correlate predictions with held-out responses: (n_group, n)."""
        p, c1 = weight.shape[1], self.c1[rows]
        gram = (c1.T @ c1).astype(products.dtype)
        on = products[:, p:]
        left = on - gram @ coef
        mean = left[:, 0] / len(rows)
        spread = power - np.einsum("gcv,gcv->gv", coef, on + left) - len(rows) * mean**2
        cov, var = np.empty_like(spread), np.empty_like(spread)
        for b, w in enumerate(weight):
            # what cleaning and centring take off Q is taken off its product with the weights
            off = np.vstack([coef[b], left[b, :1]])
            cov[b] = np.einsum("ij,ij->j", w, products[b, :p]) - np.einsum("ij,ij->j", one.taken.T @ w, off)
            rotated = one.triangle @ w
            var[b] = np.einsum("ij,ij->j", rotated, rotated)
        with np.errstate(invalid="ignore", divide="ignore"):
            r = cov / np.sqrt(var * np.maximum(spread, 0.0))
        return np.asarray(np.nan_to_num(r, nan=0.0, posinf=0.0, neginf=0.0))

    @staticmethod
    def _defined(y: np.ndarray) -> np.ndarray:
        return np.asarray(~np.isnan(pearson(y, y)))


class _Products:
    """Columns times shifted responses over some rows, for every shift of every run."""

    def __init__(
        self,
        columns: np.ndarray,
        y: np.ndarray,
        rows: np.ndarray,
        runs: Sequence[slice],
        shifts: Sequence[np.ndarray],
    ) -> None:
        inside = np.zeros(len(y), dtype=y.dtype)
        inside[rows] = 1
        touched = [i for i, run in enumerate(runs) if inside[run].any()]
        self.shifts = [shifts[i] for i in touched]
        self.columns = [columns[runs[i]] * inside[runs[i], None] for i in touched]
        self.powers = [_powers_at(inside[runs[i]], y[runs[i]]) for i in touched]
        self.y = np.concatenate([y[runs[i]] for i in touched])
        long = len(self.y) >= LONG * len(touched)
        pairs = zip(self.columns, touched, strict=True)
        self.tables = [_every_shift(one, y[runs[i]]) for one, i in pairs] if long else None

    def at(self, group: slice) -> np.ndarray:
        """Give the products at the shifts of some nulls: (n_group, n_columns, n)."""
        if self.tables is None:
            return self._products(group)
        first, *others = zip(self.tables, self.shifts, strict=True)
        total = first[0][first[1][group]]
        for table, shift in others:
            total += table[shift[group]]
        return np.asarray(total)

    def _products(self, group: slice) -> np.ndarray:
        """Turn the columns instead of the responses, and multiply."""
        turned = [
            np.concatenate(
                [np.roll(one, s[b], axis=0) for one, s in zip(self.columns, self.shifts, strict=True)]
            )
            for b in range(group.start, group.stop)
        ]
        product = np.hstack(turned).T @ self.y
        return np.asarray(product.reshape(len(turned), -1, self.y.shape[1]))

    def power(self, group: slice) -> np.ndarray:
        """Give Σ y² over the rows at the shifts of some nulls: (n_group, n)."""
        total: np.ndarray = np.sum(
            [p[s[group]] for p, s in zip(self.powers, self.shifts, strict=True)], axis=0
        )
        return total


def _every_shift(columns: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Multiply columns with responses at every circular shift: entry (s, i, v) is Σ_t columns[t, i] y[(t + s) % n, v]."""
    spectrum = np.conj(fft.rfft(columns, axis=0))[:, :, None] * fft.rfft(y, axis=0)[:, None, :]
    table: np.ndarray = fft.irfft(spectrum, n=len(y), axis=0, overwrite_x=True)
    return table


def _powers_at(inside: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sum y² over the rows inside at every circular shift: (n, n_targets); all alike where the whole run is inside."""
    power = np.square(y)
    if inside.all():
        return np.broadcast_to(power.sum(axis=0), y.shape)
    at: np.ndarray = _every_shift(inside[:, None], power)[:, 0]
    return at
