"""6. A comparison: two feature spaces, the same people, rows, folds and targets. Three verdicts are possible."""

import numpy as np

from langcortex import Features, Protocol, Recording, Space, align_sentences, compare, fit, score
from langcortex.simulation.demo import demo_story
from langcortex.simulation.planted import Plant, plant

rng = np.random.default_rng(6)
story = demo_story()
s = story.sentences


def table(name: str, values: np.ndarray) -> Features:
    return Features(name, s.ids, s.onset, s.duration, s.run, values)


# The brain responds to `truth`. `rotated` has the same information in other columns; `noise` has none of it.
values = rng.standard_normal((len(s), 8))
rotation = np.linalg.qr(rng.standard_normal((8, 8)))[0]
features = {
    "truth": table("truth", values),
    "rotated": table("rotated", values @ rotation),
    "noise": table("noise", rng.standard_normal((len(s), 8))),
}

# Eight people, each with 30 targets that are random mixtures of `truth`.
everywhere, nowhere = np.ones(30, dtype=bool), np.zeros(30, dtype=bool)
space = Space("columns", np.array([f"target-{i}" for i in range(30)]))
r: dict[str, list[float]] = {name: [] for name in features}
for person in range(8):
    planted = plant(story, features["truth"], everywhere, nowhere, Plant(delay=6.0), rng)
    recordings = [
        Recording(y, np.arange(len(y)) * 2.0, 2.0, run, f"{person}", space) for run, y in planted.items()
    ]
    design = align_sentences(story, features, recordings, delays=[6.0])
    for name in features:
        r[name].append(float(np.nanmean(score(fit(design, name, Protocol())).r)))
for name, r_of_people in r.items():
    print(f"{name}: mean r over people = {np.mean(r_of_people):.3f}")


# `compare` takes (units, layers): here one layer, and people are the unit that is resampled.
def verdict(a: str, b: str, people: int) -> str:
    first, second = np.array(r[a][:people])[:, None], np.array(r[b][:people])[:, None]
    return compare(first, second, np.array([0]), (a, b), "subjects", rng, margin=0.01).verdict


print("1.", verdict("truth", "noise", 8))
print("2.", verdict("truth", "rotated", 8))  # "no difference" is a finding, by two one-sided tests
print("3.", verdict("truth", "noise", 3))  # 2 / 2³ = .25: three people can never give p ≤ .05
