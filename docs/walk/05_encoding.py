"""5. An encoding: fit on some runs, predict the others, and compare with chance.

Forty targets respond to a feature space at a delay of 6 s; two hundred are silent. What is found?
"""

import numpy as np

import langcortex as lc
from langcortex.encoding.protocol import outer_folds
from langcortex.simulation.demo import demo_story
from langcortex.simulation.planted import Plant, plant

rng = np.random.default_rng(5)
story = demo_story()
s = story.sentences

# A feature space is anything with ids, times and values. Random numbers stand for hidden states.
states = lc.Features("states", s.ids, s.onset, s.duration, s.run, rng.standard_normal((len(s), 8)))
features = {"states": states, "duration": lc.control("duration", story)}

names = np.array([f"target-{i}" for i in range(240)])
responding, nothing = np.arange(240) < 40, np.zeros(240, dtype=bool)
planted = plant(story, states, responding, nothing, Plant(signal=0.4, delay=6.0), rng)
recordings = [
    lc.Recording(values, np.arange(len(values)) * 2.0, 2.0, run, "01", lc.Space("columns", names))
    for run, values in planted.items()
]
design = lc.align_sentences(story, features, recordings)

# The protocol is every choice that could leak. Each run is predicted from the other five.
protocol = lc.Protocol(confounds=("duration",), n_nulls=99)
folds = outer_folds(design.run, design.scans, protocol)
print(
    f"{len(folds)} folds; the first is fitted to {len(folds[0].train)} rows and predicts {len(folds[0].test)}"
)

# The delay is chosen in each fold from its training rows alone.
delays = lc.choose_delays(design, ["states"], protocol)
print(f"Planted at 6 s, chosen: {sorted(set(delays.ravel().tolist()))} s")

# Scaling, confounds and one penalty per target come from training rows too; then the held-out run is scored.
encoding = lc.fit(design, "states", protocol, delays)
scores = lc.score(encoding)
for name, targets in (("planted", responding), ("silent", ~responding)):
    print(f"{name}: mean r = {scores.r[targets].mean():.2f}, mean R² = {scores.r2[targets].mean():.2f}")

# Chance: shift the responses of every run circularly, fit again, and keep the largest r of each shift.
test = lc.null_test(design, [(["states"] * len(folds), encoding)], protocol, seed=5)
significant = test.p_corrected[0] <= 0.05
counts = f"{significant[responding].sum()} of 40 planted, {significant[~responding].sum()} of 200 silent"
print(f"Found at p ≤ .05, corrected: {counts}")
