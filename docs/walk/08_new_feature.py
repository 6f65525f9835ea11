"""8. A feature of your own: a function from a story to a table. No class to inherit from, nothing to register."""

import inspect
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex import Features, Story, read_study, run_study
from langcortex.simulation.demo import demo_story
from langcortex.simulation.planted import Plant, plant


# This is all that you write. Rows carry the ids and times of the story; counts merge into sentences by their sum.
def syllables(story: Story) -> Features:
    """Count the syllables of each word as groups of vowels."""
    counts = [max(1, len(re.findall("[aeiouy]+", word.lower()))) for word in story.text]
    values = np.array(counts, dtype=float)[:, None]
    return Features("syllables", story.ids, story.onset, story.duration, story.run, values, combine="sum")


# The study finds the function by "file:name", in a file beside it; whoever reads the study must allow that code.
STUDY = """
[story]
files = "story/{run}.tsv"
[recording]
files = "sub-{subject}_{run}.tsv"
tr = 2.0
[recording.regions]
temporal = ["t0", "t1", "t2"]
occipital = ["t3", "t4", "t5"]
[features]
controls = ["my_features:syllables", "word_rate"]
"""
folder = tempfile.TemporaryDirectory()
here = Path(folder.name)
imports = "import re\nimport numpy as np\nfrom langcortex import Features, Story\n"
(here / "my_features.py").write_text(imports + inspect.getsource(syllables), encoding="utf-8")
(here / "study.toml").write_text(STUDY, encoding="utf-8")

# The data of one subject: three targets respond to syllables, three are noise.
story = demo_story()
temporal, nothing = np.arange(6) < 3, np.zeros(6, dtype=bool)
planted = plant(story, syllables(story), temporal, nothing, Plant(signal=0.5), np.random.default_rng(8))
(here / "story").mkdir()
for run, values in planted.items():
    part = story.take([run])
    words = {"word": part.text, "onset": part.onset, "duration": part.duration, "sentence": part.sentence}
    pd.DataFrame(words).to_csv(here / "story" / f"{run}.tsv", sep="\t", index=False)
    table = pd.DataFrame(values, columns=[f"t{i}" for i in range(6)])
    table.to_csv(here / f"sub-01_{run}.tsv", sep="\t", index=False)

# Your feature is aligned, fitted, scored and reported like every other.
results = run_study(read_study(here / "study.toml", allow_code=True))
scores = results.scores[(results.scores.run == "all") & (results.scores.metric == "r")]
print(scores.pivot_table(index="model", columns="region", values="value").round(2).to_string())
folder.cleanup()
