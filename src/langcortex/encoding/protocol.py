"""The protocol: every choice that can leak, declared in one place and obeyed everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from langcortex.errors import FitError, SettingsError

PUBLISHED = "replication-2025"  # the preset that is the published recipe
GRID = tuple(float(g) for g in np.logspace(-3, 5, 9))


@dataclass(frozen=True)
class Protocol:
    """How a model is fitted and scored.

    Everything is learnt on training rows: scaling, confound coefficients, PCA, penalties, delays. The preset
    ``"replication-2025"`` is the published exception, and lists its leaks in `leaks`.

    Attributes
    ----------
    name : "rigorous" or "replication-2025"
    folds : "runs" leaves one run out at a time; a number makes that many groups of neighbouring runs. Where
        there is one run, contiguous blocks of rows (five for "runs")
    test_runs : fit on all other runs and score on these only, instead of cross-validating over all runs
    inner : the same as `folds`, for the folds inside the training rows that choose penalties and delays
    gap : inside one run, training rows whose scans are this close to a test row's scans are left out
    standardise : "training" scales features by the training rows' mean and standard deviation, "run" each
        run by its own, "none" leaves them
    pca : keep this many principal components of the training features; None keeps all
    nested_axes : learn scales and principal components anew in every inner fold; otherwise inner folds use those of the
        outer training rows, which is faster, never uses test rows, and makes inner scores slightly optimistic
    penalties : the grid; one penalty per target is chosen from it
    relative : whether penalties are shares of the features' mean eigenvalue (so layers are comparable) or α
    choose_by : "r2" or "r", the inner score that chooses penalty and delay
    delay_by : one delay per outer "fold" for all targets and models, or one per "target"
    confounds : feature spaces regressed out of features and responses
    n_nulls : nulls of the test of the layer chosen in training; 0 leaves the test out
    null : how the responses of every run are moved before they are fitted again: "shift" shifts each run circularly,
        "block" shuffles blocks of neighbouring rows, "phase" gives every frequency a random phase
    null_block : rows in a block, for "block": at least as long as the autocorrelation of the responses
    null_penalties : nulls use the "kept" penalties of the true responses, or have theirs "chosen" by inner folds again
    null_layers : test the layer "chosen" in training, or besides it "all" layers with a correction over them, which
        takes as many times longer
    leaks : known leaks, one sentence each; empty for a protocol without any
    """

    name: str = "rigorous"
    folds: str | int = "runs"
    test_runs: tuple[str, ...] = ()
    inner: str | int = "runs"
    gap: int = 5
    standardise: str = "training"
    pca: int | None = None
    penalties: tuple[float, ...] = GRID
    relative: bool = True
    choose_by: str = "r2"
    delay_by: str = "fold"
    nested_axes: bool = True
    confounds: tuple[str, ...] = ()
    n_nulls: int = 1000
    null: str = "shift"
    null_block: int = 30
    null_penalties: str = "kept"
    null_layers: str = "chosen"
    leaks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key, allowed in (
            ("standardise", ("training", "run", "none")),
            ("choose_by", ("r2", "r")),
            ("delay_by", ("fold", "target")),
            ("null", ("shift", "block", "phase")),
            ("null_penalties", ("kept", "chosen")),
            ("null_layers", ("chosen", "all")),
        ):
            if getattr(self, key) not in allowed:
                raise SettingsError(
                    f"protocol.{key} is one of {', '.join(allowed)}; not '{getattr(self, key)}'."
                )
        for key in ("folds", "inner"):
            value = getattr(self, key)
            if value != "runs" and not (isinstance(value, int) and value >= 2):
                raise SettingsError(f"protocol.{key} is 'runs' or a number of at least 2; not {value!r}.")
        if self.null_block < 1:
            raise SettingsError(
                f"protocol.null_block is a number of rows of at least 1; not {self.null_block}."
            )
        if not self.penalties or min(self.penalties) <= 0:
            raise SettingsError("protocol.penalties needs one or more numbers above 0.")
        if self.pca is not None and self.pca < 1:
            raise SettingsError(
                "protocol.pca is a number of components of at least 1; leave it out to keep all."
            )

    @property
    def is_published(self) -> bool:
        """Whether this is the published recipe, leaks included."""
        return self.name == PUBLISHED

    def deciding(self, nulls: bool = False, name: bool = False) -> dict[str, Any]:
        """Return the choices that decide a fit, by their names: they are part of the name of a stored result.

        Parameters
        ----------
        nulls : with the choices that decide its nulls, except for how many there are
        name : with the name of the protocol
        """
        omitted = ("n_nulls", "leaks") if name else ("name", "n_nulls", "leaks")
        choices = {key: value for key, value in asdict(self).items() if key not in omitted}
        if nulls:
            return choices
        return {key: value for key, value in choices.items() if not key.startswith("null")}


REPLICATION_LEAKS = (
    "Voxels are chosen by an in-sample fit of the middle layer to all rows, test rows included.",
    "The delay is chosen on the last fifth of the same rows that are scored, for each model by itself.",
    "Folds are shuffled, so most test sentences share scans with a training sentence.",
    "Test rows are residualised on themselves.",
    "The two models get different voxels and perhaps different delays, so their difference is not paired.",
    "Penalties are absolute, so layers with larger hidden states are shrunk less.",
)


class Fold(NamedTuple):
    """Rows to learn from and rows to score, by their numbers."""

    train: np.ndarray
    test: np.ndarray


def outer_folds(run: np.ndarray, scans: np.ndarray, protocol: Protocol) -> list[Fold]:
    """Split rows into training and test, by whole runs, or by contiguous blocks with a gap where there is one run.

    Parameters
    ----------
    run : (n_rows,)
    scans : (n_rows, 2) first and last scan of each row within its run
    """
    rows = np.arange(len(run))
    if protocol.test_runs:
        names = set(run.tolist())
        unknown = [run_name for run_name in protocol.test_runs if run_name not in names]
        if unknown:
            raise SettingsError(
                f"protocol.test_runs names '{unknown[0]}', but the runs are: {', '.join(dict.fromkeys(run.tolist()))}."
            )
        test = np.isin(run, protocol.test_runs)
        if test.all():
            raise FitError("protocol.test_runs names every run, so none is left to learn from.")
        return [Fold(rows[~test], rows[test])]
    return list(_split(rows, run, scans, protocol.folds, protocol.gap))


def inner_folds(train: np.ndarray, run: np.ndarray, scans: np.ndarray, protocol: Protocol) -> list[Fold]:
    """Split training rows again, in the same way, to choose penalties and delays."""
    return list(_split(train, run, scans, protocol.inner, protocol.gap))


def check_folds(run: np.ndarray, scans: np.ndarray, protocol: Protocol) -> int:
    """Check that a subject's rows can be split, and split again, and return how many rows the smallest training set has.

    Parameters
    ----------
    run : (n_rows,)
    scans : (n_rows, 2) first and last scan of each row within its run

    Raises
    ------
    FitError : there are too few runs or rows
    """
    outer = outer_folds(run, scans, protocol)
    fewest = min(len(set(run[fold.train].tolist())) for fold in outer)
    n_runs = len(set(run.tolist()))
    n_groups = 0 if protocol.test_runs else protocol.folds
    for setting, k, n, what in (
        ("folds", n_groups, n_runs, "runs"),
        ("inner", protocol.inner, fewest, "training runs"),
    ):
        if isinstance(k, int) and k > n > 1:
            raise FitError(
                f'protocol.{setting} is {k}, but there are {n} {what} to split: use at most {n}, or "runs".'
            )
    inner = [split for fold in outer for split in inner_folds(fold.train, run, scans, protocol)]
    return min(len(fold.train) for fold in (*outer, *inner))


def describe_components(protocol: Protocol, n_rows: int) -> str:
    """Return a remark where a training set of `n_rows` has fewer components than the protocol keeps; "" elsewhere."""
    if protocol.pca is None or protocol.pca < n_rows:
        return ""
    return (
        f"protocol.pca is {protocol.pca}, but the smallest training set has {n_rows} rows, so at most {n_rows - 1} components: "
        "as many as there are will be kept."
    )


def _split(
    rows: np.ndarray, run: np.ndarray, scans: np.ndarray, n_folds: str | int, gap: int
) -> Iterator[Fold]:
    """Yield folds of whole runs, or of contiguous blocks of the only run."""
    names = list(dict.fromkeys(run[rows].tolist()))
    if len(names) > 1:
        k = len(names) if n_folds == "runs" else min(int(n_folds), len(names))
        for group in np.array_split(np.arange(len(names)), k):
            test = np.isin(run[rows], [names[i] for i in group])
            yield Fold(rows[~test], rows[test])
        return
    k = 5 if n_folds == "runs" else int(n_folds)
    if len(rows) < 3 * k:
        raise FitError(
            f"{len(rows)} rows of one run are too few for {k} contiguous blocks of at least 3. Use fewer folds."
        )
    for block in np.array_split(rows, k):
        first, last = scans[block, 0].min() - gap, scans[block, 1].max() + gap
        clear = (scans[rows, 1] < first) | (scans[rows, 0] > last)
        train = rows[clear & ~np.isin(rows, block)]
        if len(train) < 3:
            raise FitError(
                f"With a gap of {gap} scans, {len(train)} rows are left to learn from beside a block of {len(block)}. "
                "Use fewer folds or a smaller protocol.gap."
            )
        yield Fold(train, block)
