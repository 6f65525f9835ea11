"""5. An encoding: learn on some runs, predict the others, and ask what chance gives.

Forty targets follow a feature space at a delay of 6 s; two hundred are silent. What is found?
"""

import numpy as np

from langcortex import Features, Protocol, Recording, Space, align_sentences, control
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.null_test import null_test
from langcortex.encoding.protocol import outer_folds
from langcortex.encoding.scores import score
from langcortex.encoding.selection import choose_delays
from langcortex.simulation.demo import demo_story
from langcortex.simulation.planted import Plant, plant

rng = np.random.default_rng(5)
story = demo_story()
s = story.sentences

# A feature space of our own: anything with ids, times and values. Random numbers stand for hidden states.
states = Features("states", s.ids, s.onset, s.duration, s.run, rng.standard_normal((len(s), 8)))
features = {"states": states, "duration": control("duration", story)}

names = np.array([f"target-{i}" for i in range(240)])
followers, nobody = np.arange(240) < 40, np.zeros(240, dtype=bool)
planted = plant(story, states, followers, nobody, Plant(signal=0.4, delay=6.0), rng)
recordings = [
    Recording(values, np.arange(len(values)) * 2.0, 2.0, run, "01", Space("columns", names))
    for run, values in planted.items()
]
design = align_sentences(story, features, recordings)

# The protocol holds every choice that could leak. Runs take turns: each is predicted from the other five.
protocol = Protocol(confounds=("duration",), n_nulls=99)
folds = outer_folds(design.run, design.scans, protocol)
print(
    f"{len(folds)} folds; the first learns from {len(folds[0].train)} rows and predicts {len(folds[0].test)}"
)

# The delay is chosen in each fold from its training rows alone.
delays = choose_delays(design, ["states"], protocol)
print(f"Planted at 6 s, chosen: {sorted(set(delays.ravel().tolist()))} s")

# Scaling, confounds and a penalty per target are learnt in training too; then the held-out run is scored.
encoding = fit(design, "states", protocol, delays)
scores = score(encoding)
for name, which in (("planted", followers), ("silent", ~followers)):
    print(f"{name}: mean r = {scores.r[which].mean():.2f}, mean R² = {scores.r2[which].mean():.2f}")

# Chance: turn every run's responses by a random amount, fit again, and keep the largest r of each turn.
test = null_test(design, [(["states"] * len(folds), encoding)], protocol, seed=5)
found = test.p_corrected[0] <= 0.05
counts = f"{found[followers].sum()} of 40 planted, {found[~followers].sum()} of 200 silent"
print(f"Found at p ≤ .05, corrected: {counts}")
