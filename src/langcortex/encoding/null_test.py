"""Null tests: the responses of every run are moved against the features, training rows included, and fitted again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from langcortex.arrays import chunks
from langcortex.design.design import Design
from langcortex.encoding.folded_design import FoldedDesign, responses_of_chunk
from langcortex.encoding.prepare import DEFAULT_ENGINE, Engine
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding, score
from langcortex.nulls.permutations import RowPermutations
from langcortex.nulls.refit import NullGroup, make_refitter
from langcortex.nulls.refit_fixed import FixedPenaltyRefit
from langcortex.ridge.plan import NestedFold, partition_rows
from langcortex.stats.null_counts import NullCounts, Significance

NULL_BYTES = 2**26  # memory for the nulls of a chunk of targets
AHEAD = 16  # chunks that may wait to be yielded
CHUNK = 2048  # targets at once, at most

Tested = tuple[Sequence[str], Encoding]
"""A test: the feature space of each outer fold, and their encoding, whose penalties and delays are used again."""


def null_scores(
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    seed: int | Sequence[int],
    engine: Engine = DEFAULT_ENGINE,
) -> np.ndarray:
    """Score nulls: the responses of every run moved, training rows included, and fitted again.

    Moving held-out predictions alone is not enough when runs take turns: the weights that predict run k come
    from run j and the other way round, so the scores of two runs share a term, their mean varies more than that
    of independent runs (by √2 in standard deviation where there is no effect), and too many targets would be
    significant. Refitting on the moved responses carries that into the null.

    Parameters
    ----------
    spaces : (n_folds,) the feature space of each outer fold
    protocol : with ``null``, ``n_nulls``, ``null_block`` and ``null_penalties``
    encoding : its delays are used again, and its penalties unless they are chosen in every null
    seed : see `langcortex.nulls.permutations.RowPermutations`: a run is moved alike in every subject and model
    engine : its executor works on several chunks at once

    Returns
    -------
    (n_nulls, n_targets) float32, mean r over test segments; for many targets `null_test` and `null_chunks` need less memory
    """
    out = np.full((protocol.n_nulls, design.space.n_targets), np.nan, dtype=np.float32)
    for chunk, null in null_chunks(design, [(spaces, encoding)], protocol, seed, engine):
        out[:, chunk] = null[:, 0]
    return out


def null_test(
    design: Design,
    tested: Sequence[Tested],
    protocol: Protocol,
    seed: int | Sequence[int],
    engine: Engine = DEFAULT_ENGINE,
) -> Significance:
    """Test the mean r over test segments of one subject, corrected over targets and over all that is tested.

    Nulls are counted as they come: how many reach each observed value, and the largest over targets of every null
    and layer.

    Parameters
    ----------
    tested : one or more (spaces, encoding), such as layers, under the same nulls
    protocol, seed, engine : see `null_scores`

    Returns
    -------
    Significance, of shape (n_tested, n_targets)

    References
    ----------
    Phipson & Smyth 2010, doi:10.2202/1544-6115.1585 (the +1); Nichols & Holmes 2002, doi:10.1002/hbm.1058
    """
    counts = NullCounts(np.stack([score(encoding).r for _, encoding in tested]), protocol.n_nulls)
    for chunk, null in null_chunks(design, tested, protocol, seed, engine):
        counts.add(null, 0, chunk)
    return counts.significance("rows within runs", describe_null(protocol), str(seed))


def describe_null(protocol: Protocol) -> str:
    """Describe in a few words how nulls are made.

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
    engine: Engine = DEFAULT_ENGINE,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield nulls a chunk of targets at a time, so that no map of all nulls is needed.

    Parameters
    ----------
    tested : one or more (spaces, encoding), under the same nulls
    protocol, seed, engine : see `null_scores`

    Yields
    ------
    chunk : a slice of targets
    null : (n_nulls, n_tested, n) float32, mean r over test segments; NaN where a target has no score
    """
    folded = FoldedDesign(design, protocol)
    permutations = RowPermutations(protocol.null, design.run, protocol.n_nulls, seed, protocol.null_block)
    whole_runs = all(permutations.has_whole_runs(rows) for fold in folded.folds for rows in fold)
    # the sum of squares of a part of a run is not what it was after its phases are rotated
    fixed = protocol.null_penalties == "kept" and (whole_runs or protocol.null != "phase")
    score_chunk = _score_fixed if fixed and engine.backend.device == "numpy" else _score_refitted
    size = int(np.clip(NULL_BYTES // (4 * protocol.n_nulls * len(tested)), 16, CHUNK))
    parts = chunks(design.space.n_targets, size)
    yield from zip(
        parts, _in_order(engine, score_chunk(folded, tested, permutations, engine), parts), strict=True
    )


ScoreChunk = Callable[[slice], np.ndarray]
"""From a chunk of targets to its nulls, (n_nulls, n_tested, n)."""


def _in_order(engine: Engine, score_chunk: ScoreChunk, parts: Sequence[slice]) -> Iterator[np.ndarray]:
    """Score several chunks at once and yield them in order, with few that wait."""
    if engine.executor is None:
        yield from map(score_chunk, parts)
        return
    waiting: deque[Future[np.ndarray]] = deque()
    for part in parts:
        waiting.append(engine.executor.submit(score_chunk, part))
        if len(waiting) == AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _responses_by_delay(design: Design, tested: Sequence[Tested]) -> dict[float, np.ndarray]:
    delays = np.unique(np.concatenate([np.unique(encoding.delay) for _, encoding in tested]))
    return {float(d): design.Y[float(d)] for d in delays}


def _score_fixed(
    folded: FoldedDesign, tested: Sequence[Tested], permutations: RowPermutations, engine: Engine
) -> ScoreChunk:
    """Return scores at the penalties of the true fit: products of each fold's columns with the moved responses."""
    sources = _responses_by_delay(folded.design, tested)
    chosen = [folded.penalty_index(encoding.penalty) for _, encoding in tested]

    def refit(test: int, fold: int) -> FixedPenaltyRefit:
        space = tested[test][0][fold]
        nested = folded.nested_fold(fold, inner=False)
        plan = engine.plan(folded, space, [nested])
        return FixedPenaltyRefit(plan, folded.nuisance([space]), nested.train, nested.segments, permutations)

    pairs = [(test, fold) for test in range(len(tested)) for fold in range(len(folded.folds))]
    refits = dict(zip(pairs, engine.map(refit, *zip(*pairs, strict=True)), strict=True))

    def score_chunk(chunk: slice) -> np.ndarray:
        shape = (permutations.n_nulls, len(tested), chunk.stop - chunk.start)
        total, count = np.zeros(shape, dtype=np.float32), np.zeros(shape[1:], dtype=np.float32)
        for (test, fold), fixed in refits.items():
            targets, y = responses_of_chunk(sources, tested[test][1].delay[fold], chunk)
            if len(targets):
                r, n_defined = fixed.score_nulls(y, chosen[test][fold, targets])
                total[:, test, targets - chunk.start] += r
                count[test, targets - chunk.start] += n_defined
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total / count)

    return score_chunk


def _score_refitted(
    folded: FoldedDesign, tested: Sequence[Tested], permutations: RowPermutations, engine: Engine
) -> ScoreChunk:
    """Return scores of moved responses that are fitted like further targets, the same for all that is tested."""
    groups, sources = _null_groups(folded, tested, engine), _responses_by_delay(folded.design, tested)
    chosen = [folded.penalty_index(encoding.penalty) for _, encoding in tested]
    choose = folded.protocol.null_penalties == "chosen"
    at_once = engine.backend.chunk_size([plan for group in groups for plan, _ in group.plans])
    dtype = next(iter(sources.values())).dtype
    refitters = [
        make_refitter(group, permutations, engine.backend, at_once, choose, dtype) for group in groups
    ]

    def score_chunk(chunk: slice) -> np.ndarray:
        shape = (permutations.n_nulls, len(tested), chunk.stop - chunk.start)
        total, count = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.uint16)
        for group, refitter in zip(groups, refitters, strict=True):
            all_targets, responses = responses_of_chunk(sources, group.delay, chunk)
            for part in chunks(len(all_targets), refitter.size):
                targets, y = all_targets[part], np.ascontiguousarray(responses[:, part])
                penalties = None if choose else [index[:, targets] for index in chosen]
                for test, nulls, r in refitter.score_nulls(y, penalties):
                    defined = np.isfinite(r)
                    total[nulls, test, targets - chunk.start] += np.where(defined, r, 0.0)
                    count[nulls, test, targets - chunk.start] += defined
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total / count.astype(np.float32))

    return score_chunk


def _null_groups(folded: FoldedDesign, tested: Sequence[Tested], engine: Engine) -> list[NullGroup]:
    """Group tests and folds that are fitted to the same responses: same delays, same confounds."""
    inner = folded.protocol.null_penalties == "chosen"
    nested_folds = [folded.nested_fold(k, inner) for k in range(len(folded.folds))]
    groups: dict[tuple[bytes, str], dict[str, list[tuple[int, int]]]] = {}
    for i, (spaces, encoding) in enumerate(tested):
        for k, space in enumerate(spaces):
            # a confound that is tested is not regressed out, so its responses are its alone
            confound = space if space in folded.protocol.confounds else ""
            key = (np.ascontiguousarray(encoding.delay[k]).tobytes(), confound)
            groups.setdefault(key, {}).setdefault(space, []).append((i, k))
    null_groups = []
    for users_of_space in groups.values():
        i, k = next(iter(users_of_space.values()))[0]
        null_groups.append(_null_group(folded, users_of_space, nested_folds, tested[i][1].delay[k], engine))
    return null_groups


def _null_group(
    folded: FoldedDesign,
    users_of_space: Mapping[str, Sequence[tuple[int, int]]],
    nested_folds: Sequence[NestedFold],
    delay: np.ndarray,
    engine: Engine,
) -> NullGroup:
    """Prepare the feature spaces of one group.

    Parameters
    ----------
    users_of_space : feature space → (test, outer fold) that read it
    """
    numbers = sorted({k for users in users_of_space.values() for _, k in users})
    sets = partition_rows([nested_folds[k] for k in numbers], folded.confounds(list(users_of_space)))
    prepared = []
    for space, users in users_of_space.items():
        folds = sorted({k for _, k in users})
        plan = engine.plan(folded, space, [nested_folds[k] for k in folds])
        plan = plan.without_cache()  # its caches belong to these sets of rows
        prepared.append((plan, [(i, k, folds.index(k)) for i, k in users]))
    return NullGroup(delay, sets, prepared)
