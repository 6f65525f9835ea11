"""Choices made in training rows: a planted delay and layer are chosen, and held-out scores take no part."""

from dataclasses import replace

import numpy as np

from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import score
from langcortex.encoding.selection import assemble_chosen, choose_delays, choose_layers

PLANTED, SILENT = slice(0, 8), slice(8, None)


def test_a_planted_target_is_found_at_its_own_delay_and_layer_and_only_there(planted_layers):
    protocol = Protocol(delay_by="target")
    delays = choose_delays(planted_layers, ["layer-2"], protocol)
    np.testing.assert_array_equal(delays[:, PLANTED], 6.0)
    assert {6.0} == set(choose_delays(planted_layers, list(planted_layers.X), Protocol()).ravel())
    encodings = [fit(planted_layers, name, protocol, np.full((5, 1), 6.0)) for name in planted_layers.X]
    r = np.stack([score(e).r for e in encodings])
    assert r[2, PLANTED].min() > 0.5
    assert np.abs(np.delete(r, 2, axis=0)[:, PLANTED]).max() < 0.35
    for wrong in (2.0, 10.0):
        assert score(fit(planted_layers, "layer-2", protocol, np.full((5, 1), wrong))).r[PLANTED].max() < 0.4
    for row in r[:, SILENT]:
        assert abs(row.mean()) < 4 * row.std(ddof=1) / np.sqrt(row.size)
    assert np.median(score(encodings[2]).r2[SILENT]) < 0.01
    np.testing.assert_array_equal(choose_layers(encodings), 2)


def test_one_delay_for_all_targets_is_found_by_the_few_that_follow_anything(planted_layers):
    delays = choose_delays(planted_layers, ["layer-0", "layer-2"], Protocol())
    assert delays.shape == (5, 1)
    np.testing.assert_array_equal(delays, 6.0)
    hollow = {
        d: np.where(np.arange(128) < 8, y, np.nan) for d, y in planted_layers.Y.items()
    }  # all the rest undefined
    np.testing.assert_array_equal(
        choose_delays(replace(planted_layers, Y=hollow), ["layer-2"], Protocol()), 6.0
    )


def test_layers_are_chosen_by_inner_scores_only(planted_layers, rng):
    delays = np.full((5, 1), 6.0)
    encodings = [
        fit(planted_layers, name, Protocol(), delays, keep_predictions=True) for name in planted_layers.X
    ]
    chosen = choose_layers(encodings)
    lying = [
        replace(e, r=rng.uniform(-1, 1, e.r.shape), sse=rng.uniform(size=e.sse.shape)) for e in encodings
    ]
    np.testing.assert_array_equal(choose_layers(lying), chosen)
    turned = [replace(e, inner=o.inner) for e, o in zip(encodings, encodings[::-1], strict=True)]
    np.testing.assert_array_equal(choose_layers(turned), 3 - chosen)
    mixed = np.array([0, 2, 3, 1, 2])
    together = assemble_chosen(encodings, mixed, planted_layers, Protocol(), "model/chosen")
    assert together.name == "model/chosen"
    assert together.segments.tolist() == encodings[0].segments.tolist()
    for k, layer in enumerate(mixed):
        for name in ("r", "sse", "sst", "penalty", "delay", "inner"):
            np.testing.assert_array_equal(getattr(together, name)[k], getattr(encodings[layer], name)[k])
        rows = planted_layers.run == f"run-{k}"
        for name in ("observed", "predicted"):
            np.testing.assert_array_equal(
                getattr(together, name)[rows], getattr(encodings[layer], name)[rows]
            )
