"""4. A design: the one place where story and scanner meet. Rows are matched by id; a gap is an error, never a shift."""

import dataclasses

import numpy as np

from langcortex import HRF, Delays, Recording, Space, align_scans, align_sentences, control
from langcortex.errors import AlignmentError
from langcortex.simulation.demo import demo_story
from langcortex.simulation.planted import Plant, plant

story = demo_story()
features = {name: control(name, story) for name in ("word_count", "duration")}

# A subject with 5 targets, simulated as in 03_recording.py, this time without a file.
space = Space("columns", np.array([f"target-{i}" for i in range(5)]))
first, last = np.arange(5) < 2, np.arange(5) == 4
planted = plant(story, features["word_count"], first, last, Plant(), np.random.default_rng(0))
recordings = [
    Recording(values, np.arange(len(values)) * 2.0, 2.0, run, "01", space) for run, values in planted.items()
]

# Sentences as rows: features of a sentence, and the mean response over its window after a delay.
# Delays are candidates until one is chosen in training: all whole multiples of the TR from 4 to 10 s.
design = align_sentences(story, features, recordings)
print(f"{len(design.ids)} rows of {len(story.sentences)} sentences; candidate delays {design.delays} s")
print(f"{design.ids[0]} uses scans {design.scans[0].tolist()} at the first delay")

# X and Y are computed when they are used; their rows are in the same order.
print(f"X['duration'] is {design.X['duration'].shape}, Y[6.0] is {design.Y[6.0].shape}")

# Scans as rows: words are convolved with a haemodynamic response, or copied at several delays (FIR).
for response in (HRF("glover"), Delays((2.0, 4.0, 6.0, 8.0))):
    scans = align_scans(story, features, recordings, response)
    shape = scans.X["word_count"].shape
    print(f"{type(response).__name__}: {shape[0]} scans, {shape[1]} columns, first row {scans.ids[0]}")

# Now lose a sentence, as a tokenizer or a filter may. Rows are not paired with their neighbours: it is an error.
short = features["duration"]
keep = short.ids != "run-2/sentence-003"
columns = {name: getattr(short, name)[keep] for name in ("ids", "onset", "duration", "run", "values")}
gap = dataclasses.replace(short, **columns)
broken = align_sentences(story, {"duration": gap}, recordings)
try:
    broken.X["duration"]
except AlignmentError as error:
    print(f"AlignmentError: {error}")

# Shuffled rows do no harm.
order = np.random.default_rng(1).permutation(len(short.ids))
columns = {name: getattr(short, name)[order] for name in columns}
mixed = align_sentences(story, {"duration": dataclasses.replace(short, **columns)}, recordings)
print(f"Shuffled rows give the same X: {np.array_equal(mixed.X['duration'], design.X['duration'])}")
