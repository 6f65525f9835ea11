"""9. A corpus of your own: four methods that return stories and recordings. Studies use it like one that ships."""

import inspect
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex import Recording, Story, control, read_recording, read_story, read_study, run_study
from langcortex.simulation.demo import demo_story
from langcortex.simulation.planted import Plant, plant


# This is all that you write, in my_corpus.py beside the study. Document where each time comes from.
class MyStories:
    def __init__(self, path: Path, lead_in: float) -> None:
        self.path, self.lead_in = path, lead_in

    def subjects(self) -> list[str]:
        return sorted(folder.name for folder in self.path.glob("sub-*"))

    def story(self) -> Story:  # the words that all subjects heard; seconds since the sound of each run began
        return read_story({file.stem: file for file in sorted(self.path.glob("words/*.tsv"))})

    def runs(self, subject: str) -> list[str]:  # called as in the story
        return sorted(file.stem for file in (self.path / subject).glob("*.csv"))

    def recording(self, subject: str, run: str) -> Recording:  # the sound began `lead_in` s after scan 0
        path = self.path / subject / f"{run}.csv"
        return read_recording(path, run, subject, tr=2.0, stimulus_onset=self.lead_in)


def corpus(path: Path, lead_in: float = 0.0) -> MyStories:  # lead_in: from [data.options]
    return MyStories(path, lead_in)


STUDY = 'data = {path = "lab", corpus = "my_corpus:corpus", options = {lead_in = 8.0}}'
folder = tempfile.TemporaryDirectory()
here = Path(folder.name)
source = "from pathlib import Path\nfrom langcortex import Recording, Story, read_recording, read_story\n"
source += inspect.getsource(MyStories) + inspect.getsource(corpus)
(here / "my_corpus.py").write_text(source, encoding="utf-8")
(here / "study.toml").write_text(STUDY, encoding="utf-8")

# Simulate what such a lab has: two subjects, three regions that respond to sentence duration, four early scans.
story, auditory = demo_story(), np.ones(3, dtype=bool)
[(here / "lab" / name).mkdir(parents=True) for name in ("words", "sub-1", "sub-2")]
words = pd.DataFrame({"word": story.text, "onset": story.onset, "duration": story.duration})
for run in story.runs:
    words[story.run == run].to_csv(here / "lab" / "words" / f"{run}.tsv", sep="\t", index=False)
for subject in ("sub-1", "sub-2"):
    rng = np.random.default_rng(int(subject[-1]))
    for run, values in plant(story, control("duration", story), ~auditory, auditory, Plant(), rng).items():
        table = pd.DataFrame(np.concatenate([np.zeros((4, 3)), values])).add_prefix("region-")
        table.to_csv(here / "lab" / subject / f"{run}.csv", index=False)
results = run_study(read_study(here / "study.toml", allow_code=True))
scores = results.scores.query("run == 'all' and metric == 'r'")
print(scores.pivot_table(index="model", columns="subject", values="value").round(2).to_string())
folder.cleanup()
