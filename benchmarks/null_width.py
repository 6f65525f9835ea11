"""How wide is the null of a mean r when runs take turns as test runs? Noise against noise; no model, no data.

Run it with: python benchmarks/null_width.py (about a minute). See docs/decisions/0001-a-null-that-refits.md.
"""

import sys
from pathlib import Path

import numpy as np
from scipy import signal

from langcortex.brain.space import Space
from langcortex.design.design import Design
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.null_test import null_scores
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference.nulls import correlate_shifted, draw_shift_shares, p_values  # tests/ is on the path now

N_RUNS, N_ROWS, N_FEATURES, N_TARGETS, N_SHIFTS = 6, 29, 30, 4000, 199
MEMORY = 0.3  # autocorrelation of neighbouring rows, of features and responses
N_DRAWS = 3  # of features: the width depends on them
HEAD = """
standard deviation of mean r if runs were           as      shifted      shifted     p <= .05     p <= .05
                              independent        it is  predictions    and refit  predictions        refit"""


def noise(n_columns: int, rng: np.random.Generator) -> np.ndarray:
    """Draw every run by itself: (n_rows, n_columns), first-order autoregressive, variance 1."""
    white = rng.standard_normal((N_RUNS, N_ROWS + 50, n_columns))
    runs = signal.lfilter([np.sqrt(1 - MEMORY**2)], [1.0, -MEMORY], white, axis=1)[:, 50:]
    return np.concatenate(runs)


def rows(n_features: int, rng: np.random.Generator) -> Design:
    """Make a design by hand: features and responses that know nothing of each other."""
    run = np.repeat([f"run-{i}" for i in range(N_RUNS)], N_ROWS)
    place = np.tile(np.arange(N_ROWS), N_RUNS)
    return Design(
        X={"noise": noise(n_features, rng)},
        Y={0.0: noise(N_TARGETS, rng).astype(np.float32)},
        ids=np.array([f"{name}/row-{i:03d}" for name, i in zip(run, place, strict=True)]),
        run=run,
        scans=np.stack([place, place], axis=1),
        subject="nobody",
        space=Space("columns", np.arange(N_TARGETS).astype(str)),
        left_out={},
    )


def measure(protocol: Protocol, rng: np.random.Generator) -> list[float]:
    """Fit once, make both nulls, and give the widths and shares of the table."""
    design = rows(N_FEATURES, rng)
    encoding = fit(design, "noise", protocol, keep_predictions=True)
    true = score(encoding).r
    shares = draw_shift_shares(encoding.segments.tolist(), N_SHIFTS, rng)
    assert encoding.observed is not None
    assert encoding.predicted is not None
    shifted = correlate_shifted(encoding.observed, encoding.predicted, encoding.row_segment, shares)[1]
    refitted = null_scores(design, ["noise"] * N_RUNS, protocol, encoding, [2026, int(rng.integers(2**31))])
    independent = np.sqrt(np.square(encoding.r.std(axis=1)).sum()) / N_RUNS
    widths = [independent, true.std(), shifted.std(axis=0).mean(), refitted.std(axis=0).mean()]
    return [*widths, *(float(np.mean(p_values(true, null) <= 0.05)) for null in (shifted, refitted))]


def main() -> None:
    """Print the table, for a penalty that is fixed and for penalties that are chosen."""
    print(f"{N_RUNS} runs of {N_ROWS} rows, {N_FEATURES} features, {N_TARGETS} silent targets,")
    print(f"{N_SHIFTS} shifts, {N_DRAWS} draws of features; autocorrelation {MEMORY}")
    print(HEAD)
    for what, grid in (("one penalty", (10.0,)), ("penalty chosen", (0.1, 1.0, 10.0, 100.0, 1000.0))):
        draws = [
            measure(Protocol(penalties=grid, n_nulls=N_SHIFTS), np.random.default_rng([2026, i, len(grid)]))
            for i in range(N_DRAWS)
        ]
        *widths, shifted, refit = np.mean(draws, axis=0)
        numbers = "".join(f"{width:>13.3f}" for width in widths)
        print(f"{what:<28}{numbers}{shifted:>13.1%}{refit:>13.1%}")


if __name__ == "__main__":
    main()
