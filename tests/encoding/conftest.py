"""Fixtures of several tests of encodings."""

import numpy as np
import pytest


@pytest.fixture
def planted_layers(rng, autocorrelated, arrays_design):
    """Five runs of 60 scans, 2 s apart; four layers; 8 targets follow layer 2 after 6 s, 120 follow nothing."""
    run = np.repeat([f"run-{i}" for i in range(5)], 60)
    layers = {
        f"layer-{k}": np.concatenate([autocorrelated(rng, 60, 6, 0.5) for _ in range(5)]) for k in range(4)
    }
    noise = np.concatenate([autocorrelated(rng, 60, 128, 0.8) for _ in range(5)])
    signal = layers["layer-2"] @ rng.standard_normal((6, 8)) / np.sqrt(6)
    by_delay = {}
    for delay in (2.0, 4.0, 6.0, 8.0, 10.0):
        y = noise.copy()
        for k in range(
            5
        ):  # the response at `delay` is what the brain says 6 s after what was heard 6 − delay s before
            rows = slice(60 * k, 60 * (k + 1))
            y[rows, :8] = 0.6 * noise[rows, :8] + np.roll(signal[rows], round((6 - delay) / 2), axis=0)
        by_delay[delay] = y.astype(np.float32)
    return arrays_design(layers, by_delay, run)
