"""7. A study: the whole analysis from one file, and a report. Tables stand for images and controls for models."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex import control, read_study, run_study, write_results
from langcortex.simulation.demo import demo_story
from langcortex.simulation.planted import Plant, plant

STUDY = """
name = "A walk"

[story]
files = "story/{run}.tsv"

[recording]
files = "sub-{subject}_{run}.tsv"
tr = 2.0

[recording.regions]
auditory = ["t0", "t1", "t2"]

[features]
controls = ["duration", "word_rate"]
"""

# Write a study as you might have one: word timings, one table per run and subject, and the file that names them.
folder = tempfile.TemporaryDirectory()
here = Path(folder.name)
story = demo_story()
(here / "story").mkdir()
for run in story.runs:
    part = story.take([run])
    words = {"word": part.text, "onset": part.onset, "duration": part.duration, "sentence": part.sentence}
    pd.DataFrame(words).to_csv(here / "story" / f"{run}.tsv", sep="\t", index=False)
auditory, nothing = np.arange(6) < 3, np.zeros(6, dtype=bool)
for subject in ("01", "02"):
    rng = np.random.default_rng(int(subject))
    planted = plant(story, control("duration", story), nothing, auditory, Plant(), rng)
    for run, values in planted.items():
        table = pd.DataFrame(values, columns=[f"t{i}" for i in range(6)])
        table.to_csv(here / f"sub-{subject}_{run}.tsv", sep="\t", index=False)
(here / "study.toml").write_text(STUDY, encoding="utf-8")

# `langcortex run study.toml` does these three lines. `langcortex init` shows the defaults of everything not set here.
study = read_study(here / "study.toml")
results = run_study(study)
report = write_results(results, study.output_folder)
pooled = results.scores[(results.scores.run == "all") & (results.scores.metric == "r")]
print(pooled.pivot_table(index="model", columns="region", values="value").round(2).to_string())
print("Written:", ", ".join(sorted(p.name for p in study.output_folder.iterdir())))
print(f"The report is one file of {report.stat().st_size // 1000} kB")
folder.cleanup()
