"""1. A story: words and sentences, each with a name and a time.

A `Story` has its own clock: seconds since the stimulus of its run began. A scanner plays no part yet.
"""

import tempfile
from pathlib import Path

from langcortex import read_story
from langcortex.simulation.demo import demo_story

# The package comes with a short story in six runs: one file per run, one row per word.
story = demo_story()
print(f"{len(story)} words in {len(story.sentences)} sentences and {len(story.runs)} runs")

# Every word has an id, counted from 0 within its run. It names the word from here to the report.
for i in range(3):
    print(f"{story.ids[i]}  {story.onset[i]:.3f} s  {story.text[i]}")

# A sentence lasts from the onset of its first word to the end of its last.
sentences = story.sentences
print(
    f"{sentences.ids[1]}  {sentences.onset[1]:.3f} s for {sentences.duration[1]:.3f} s: {sentences.text[1]}"
)

# A model reads text, not a list of words. `text_of` returns the text and the characters of each word,
# so that a token can be assigned to its word.
text, spans = story.join_words(0, 4)
print(f"{text!r}: the third word is characters {spans[2][0]} to {spans[2][1]}")

# Your own timings: a Praat TextGrid, or a table with columns word, onset and duration (or offset), in seconds.
# '#' marks a pause: it is not a word, and it ends a sentence.
table = """word\tonset\tduration
hello\t0.5\t0.3
there\t0.8\t0.4
#\t1.2\t0.9
goodbye\t2.1\t0.5
"""
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "words.tsv"
    file.write_text(table, encoding="utf-8")
    small = read_story({"run-1": file}, sentences="pauses")
print(f"Read from a table: {', '.join(small.sentences.text)} ({small.left_out['run-1']} pause left out)")

# Cross-validation never splits a run. Selecting runs keeps every id as it was.
two = story.take(["run-2", "run-5"])
print(f"Two runs of it: {len(two.sentences)} sentences, the last is {two.sentences.ids[-1]}")
