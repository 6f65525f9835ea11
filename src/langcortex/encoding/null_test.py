"""What chance gives: the responses of every run moved against the features, training rows included, and fitted again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np

from langcortex.arrays import chunks
from langcortex.design.design import Design
from langcortex.encoding.folded_design import (
    confound_columns,
    label_segments,
    responses_of_chunk,
    segments_of_fold,
)
from langcortex.encoding.prepare import Plans, make_nested_fold, make_plan_of_space
from langcortex.encoding.protocol import Protocol, outer_folds
from langcortex.encoding.scores import Encoding, score
from langcortex.nulls.permutations import RowPermutations
from langcortex.nulls.refit import NullGroup, make_refitter
from langcortex.nulls.refit_fixed import FixedPenaltyRefit
from langcortex.ridge.backend import DEFAULT, Backend
from langcortex.ridge.plan import NestedFold, partition_rows
from langcortex.stats.null_counts import NullCounts, Significance

NULL_BYTES = 2**26  # memory for the nulls of a chunk of targets
AHEAD = 16  # chunks that may wait to be taken
CHUNK = 2048  # targets at once, at most

Tested = tuple[Sequence[str], Encoding]
"""What is tested: the feature space of each outer fold, and what it gave; its penalties and delays are used again."""


def null_scores(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    seed: int | Sequence[int],
    pool: Executor | None = None,
    plans: Plans | None = None,
    how: Backend = DEFAULT,
) -> np.ndarray:
    """Score what chance gives: every run's responses moved, training rows included, and fitted again.

    Moving held-out predictions alone is not enough when runs take turns: the weights that predict run k come
    from run j and the other way round, so the scores of two runs share a term, their mean varies more than that
    of independent runs (by √2 in standard deviation when nothing is there), and too many targets would be
    found. Refitting on the moved responses carries that into the null.

    Parameters
    ----------
    spaces : (n_folds,) the feature space of each outer fold
    protocol : with ``null``, ``n_nulls``, ``null_block`` and ``null_penalties``
    encoding : its delays are used again, and its penalties unless they are chosen in every null
    seed : see `langcortex.nulls.permutations.RowPermutations`: a run is moved alike in every subject and model
    pool : works on several chunks at once
    plans : where preparations of features are found again
    how : where moved responses are fitted; kept penalties need no more than products, which numpy makes

    Returns
    -------
    (n_nulls, n_targets) float32, mean r over pieces; for many targets `null_test` and `null_chunks` need less memory
    """
    out = np.full((protocol.n_nulls, design.space.n_targets), np.nan, dtype=np.float32)
    for chunk, null in null_chunks(design, [(spaces, encoding)], protocol, seed, pool, plans, how):
        out[:, chunk] = null[:, 0]
    return out


def null_test(
    design: Design,
    tested: Sequence[Tested],
    protocol: Protocol,
    seed: int | Sequence[int],
    pool: Executor | None = None,
    plans: Plans | None = None,
    how: Backend = DEFAULT,
) -> Significance:
    """Test the mean r over held-out pieces of one subject, corrected over targets and over all that is tested.

    Nulls are counted as they come: what is kept of them is how many reached each observed value, and the largest
    over targets of every null and layer.

    Parameters
    ----------
    tested : one or more (spaces, encoding), such as layers; all meet the same nulls
    protocol, seed, pool, plans, how : see `null_scores`

    Returns
    -------
    Significance, of shape (n_tested, n_targets)

    References
    ----------
    Phipson & Smyth 2010, doi:10.2202/1544-6115.1585 (the +1); Nichols & Holmes 2002, doi:10.1002/hbm.1058
    """
    tally = NullCounts(np.stack([score(encoding).r for _, encoding in tested]), protocol.n_nulls)
    for chunk, null in null_chunks(design, tested, protocol, seed, pool, plans, how):
        tally.add(null, 0, chunk)
    return tally.significance("rows within runs", describe_null(protocol), str(seed))


def describe_null(protocol: Protocol) -> str:
    """Say what a null does, for the record.

    >>> describe_null(Protocol(null="block", null_block=20))
    'random block (20 rows), refitted, penalties kept'
    """
    block = f" ({protocol.null_block} rows)" if protocol.null == "block" else ""
    return f"random {protocol.null}{block}, refitted, penalties {protocol.null_penalties}"


def null_chunks(
    design: Design,
    tested: Sequence[Tested],
    protocol: Protocol,
    seed: int | Sequence[int],
    pool: Executor | None = None,
    plans: Plans | None = None,
    how: Backend = DEFAULT,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Give nulls a chunk of targets at a time, so that no whole map of all nulls is needed.

    Parameters
    ----------
    tested : one or more (spaces, encoding); all meet the same nulls
    protocol, seed, pool, plans, how : see `null_scores`

    Yields
    ------
    chunk : a slice of targets
    null : (n_nulls, n_tested, n) float32, mean r over pieces; NaN where a target has no score
    """
    moves = RowPermutations(protocol.null, design.run, protocol.n_nulls, seed, protocol.null_block)
    folds = outer_folds(design.run, design.scans, protocol)
    whole = all(moves.whole(rows) for fold in folds for rows in fold)
    # the sum of squares of a part of a run is not what it was after its phases are turned
    kept = protocol.null_penalties == "kept" and (whole or protocol.null != "phase")
    if kept and how.device == "numpy":
        work = _kept(design, tested, protocol, moves, plans, pool)
    else:
        work = _anew(design, tested, protocol, moves, plans, how)
    size = int(np.clip(NULL_BYTES // (4 * protocol.n_nulls * len(tested)), 16, CHUNK))
    parts = chunks(design.space.n_targets, size)
    yield from zip(parts, _in_turn(pool, work, parts), strict=True)


Work = Callable[[slice], np.ndarray]


def _in_turn(pool: Executor | None, work: Work, parts: Sequence[slice]) -> Iterator[np.ndarray]:
    """Work on several chunks at once and give them in order, with few that wait."""
    if pool is None:
        yield from map(work, parts)
        return
    waiting: deque[Future[np.ndarray]] = deque()
    for part in parts:
        waiting.append(pool.submit(work, part))
        if len(waiting) == AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _positions(encoding: Encoding, protocol: Protocol) -> np.ndarray:
    """Find each chosen penalty in the grid, the largest first: (n_folds, n_targets)."""
    grid = np.sort(np.asarray(protocol.penalties))[::-1]
    # the largest penalty stands in for targets without one, which are not defined anyway
    return np.asarray(np.searchsorted(-grid, -np.nan_to_num(encoding.penalty, nan=grid[0])))


def _sources(design: Design, tested: Sequence[Tested]) -> dict[float, np.ndarray]:
    delays = np.unique(np.concatenate([np.unique(encoding.delay) for _, encoding in tested]))
    return {float(d): design.Y[float(d)] for d in delays}


def _kept(
    design: Design,
    tested: Sequence[Tested],
    protocol: Protocol,
    moves: RowPermutations,
    plans: Plans | None,
    pool: Executor | None,
) -> Work:
    """Use the penalties again: every fold by itself, products of its columns with the moved responses."""
    folds = outer_folds(design.run, design.scans, protocol)
    labels, _ = label_segments(design.run, folds)
    sources = _sources(design, tested)
    best = [_positions(encoding, protocol) for _, encoding in tested]

    def prepare(which: tuple[int, int]) -> FixedPenaltyRefit:
        i, k = which
        space = tested[i][0][k]
        confounds = confound_columns(design, [space], protocol)
        bare = make_nested_fold(
            design, folds[k], segments_of_fold(labels, folds[k]).values(), protocol, inner=False
        )
        plan = make_plan_of_space(design, space, [bare], protocol, confounds, plans)
        return FixedPenaltyRefit(
            plan, partition_rows([bare], confounds).nuisance, bare.train, bare.segments, moves
        )

    every = [(i, k) for i in range(len(tested)) for k in range(len(folds))]
    ridges = dict(zip(every, (pool.map if pool else map)(prepare, every), strict=True))

    def work(chunk: slice) -> np.ndarray:
        shape = (moves.n_nulls, len(tested), chunk.stop - chunk.start)
        total, count = np.zeros(shape, dtype=np.float32), np.zeros(shape[1:], dtype=np.float32)
        for (i, k), ridge in ridges.items():
            targets, y = responses_of_chunk(sources, tested[i][1].delay[k], chunk)
            if len(targets):
                r, known = ridge.scores(y, best[i][k, targets])
                total[:, i, targets - chunk.start] += r
                count[i, targets - chunk.start] += known
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total / count)

    return work


def _together(
    design: Design, tested: Sequence[Tested], protocol: Protocol, plans: Plans | None
) -> list[NullGroup]:
    folds = outer_folds(design.run, design.scans, protocol)
    labels, _ = label_segments(design.run, folds)
    inner = protocol.null_penalties == "chosen"
    nests = [
        make_nested_fold(design, f, segments_of_fold(labels, f).values(), protocol, inner) for f in folds
    ]
    groups: dict[Any, dict[str, list[tuple[int, int]]]] = {}
    for i, (spaces, encoding) in enumerate(tested):
        for k, space in enumerate(spaces):
            own = space if space in protocol.confounds else ""
            key = (np.ascontiguousarray(encoding.delay[k]).tobytes(), own)
            groups.setdefault(key, {}).setdefault(space, []).append((i, k))
    made = []
    for by_space in groups.values():
        i, k = next(iter(by_space.values()))[0]
        made.append(_group(design, by_space, protocol, plans, nests, tested[i][1].delay[k]))
    return made


def _group(
    design: Design,
    by_space: Mapping[str, Sequence[tuple[int, int]]],
    protocol: Protocol,
    plans: Plans | None,
    nests: Sequence[NestedFold],
    delay: np.ndarray,
) -> NullGroup:
    confounds = confound_columns(design, list(by_space), protocol)
    used = sorted({k for users in by_space.values() for _, k in users})
    prepared = []
    for space, users in by_space.items():
        own = sorted({k for _, k in users})
        plan = make_plan_of_space(design, space, [nests[k] for k in own], protocol, confounds, plans)
        plan = plan.without_cache()  # what it keeps is of these sets of rows
        prepared.append((plan, [(i, k, own.index(k)) for i, k in users]))
    return NullGroup(delay, partition_rows([nests[k] for k in used], confounds), prepared)


def _anew(
    design: Design,
    tested: Sequence[Tested],
    protocol: Protocol,
    moves: RowPermutations,
    plans: Plans | None,
    how: Backend,
) -> Work:
    """Fit moved responses as if they were further targets; all that is tested reads the same moved responses."""
    groups, sources = _together(design, tested, protocol, plans), _sources(design, tested)
    best = [_positions(encoding, protocol) for _, encoding in tested]
    choose = protocol.null_penalties == "chosen"
    at_once = how.chunk_size([plan for group in groups for plan, _ in group.plans])
    dtype = next(iter(sources.values())).dtype
    fitters = [make_refitter(group, moves, how, at_once, choose, dtype) for group in groups]

    def work(chunk: slice) -> np.ndarray:
        shape = (moves.n_nulls, len(tested), chunk.stop - chunk.start)
        total, count = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.uint16)
        for group, fitter in zip(groups, fitters, strict=True):
            every, y_all = responses_of_chunk(sources, group.delay, chunk)
            for part in chunks(len(every), fitter.size):
                targets, y = every[part], np.ascontiguousarray(y_all[:, part])
                penalties = None if choose else [b[:, targets] for b in best]
                for i, nulls, r in fitter.fitted(y, penalties):
                    known = np.isfinite(r)
                    total[nulls, i, targets - chunk.start] += np.where(known, r, 0.0)
                    count[nulls, i, targets - chunk.start] += known
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total / count.astype(np.float32))

    return work
