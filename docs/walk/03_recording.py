"""3. A recording: scans by targets, with the scanner's clock moved to the story's once, when it is read.

We simulate responses, write them to a table, and read them back as a study would.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex import Cleaning, control, read_recording
from langcortex.simulation.demo import demo_story
from langcortex.simulation.planted import Plant, plant

story = demo_story()

# `plant` simulates responses whose answer is known. Here two targets respond to the word rate of the sentence,
# one responds to its duration, and two are noise with drifts, as from a scanner.
names = ["talk-1", "talk-2", "length", "silent-1", "silent-2"]
language, auditory = np.array([1, 1, 0, 0, 0], dtype=bool), np.array([0, 0, 1, 0, 0], dtype=bool)
planted = plant(story, control("word_rate", story), language, auditory, Plant(), np.random.default_rng(0))

# Suppose that the scanner ran for 8 s (four scans of 2 s) before the story began, and one target has no data.
values = np.concatenate([np.zeros((4, 5)), planted["run-1"]])
table = pd.DataFrame(values, columns=names).assign(dead=0.0)
folder = tempfile.TemporaryDirectory()
file = Path(folder.name) / "sub-01_run-1.tsv"
table.to_csv(file, sep="\t", index=False)

# Cleaning is a value: what is done to each run before any model sees it. These are the defaults, written out.
cleaning = Cleaning(detrend=True, high_pass=1 / 128, standardise=True)
recording = read_recording(file, "run-1", "01", tr=2.0, stimulus_onset=8.0, cleaning=cleaning)

# `onset` is on the story's clock: scans before the story have negative times. From here on there is one clock.
print(f"{recording.values.shape[0]} scans of {recording.space.n_targets} targets, TR {recording.tr:g} s")
print(f"The first scan begins at {recording.onset[0]:g} s, the story at 0 s; a scan stands for its middle:")
print(f"scan 4 stands for {recording.time[4]:g} s")

# Each run is scaled by itself. A target without data is undefined: NaN, never 0.
for name in ("talk-1", "dead"):
    column = recording.values[:, list(recording.space.names).index(name)]
    print(f"{name}: mean {abs(column.mean()):.2f}, standard deviation {column.std(ddof=1):.2f}")

# A Space knows where the columns are in the brain: it names regions, and writes maps back to files.
space = recording.space.with_regions({"talk": ["talk-1", "talk-2"]})
print(f"Region 'talk' has {space.regions['talk'].sum()} of {space.n_targets} targets")
(written,) = space.write(np.arange(6.0), Path(folder.name) / "map")
print(f"A map of {space.kind} is written as {written.name}")
folder.cleanup()
