"""1. A story: words and sentences, each with a name and a time.

A `Story` lives on its own clock: seconds since the stimulus of its run began. Nothing here knows of a scanner.
"""

import tempfile
from pathlib import Path

from langcortex import read_story
from langcortex.simulation.demo import demo_story

# The package ships a short story in six runs. One file a run; a row a word.
story = demo_story()
print(f"{len(story)} words in {len(story.sentences)} sentences and {len(story.runs)} runs")

# Every word has an id. It counts from 0 within its run, and it is the word's name from here to the report.
for i in range(3):
    print(f"{story.ids[i]}  {story.onset[i]:.3f} s  {story.text[i]}")

# Sentences are made of words: from the onset of the first to the end of the last.
sentences = story.sentences
print(
    f"{sentences.ids[1]}  {sentences.onset[1]:.3f} s for {sentences.duration[1]:.3f} s: {sentences.text[1]}"
)

# A model reads text, not a list of words. `join_words` writes it out and says which characters are which word,
# so that a token can be given back to the word it came from.
text, spans = story.join_words(0, 4)
print(f"{text!r}: the third word is characters {spans[2][0]} to {spans[2][1]}")

# Your own timings: a Praat TextGrid, or a table with columns word, onset and duration (or offset), in seconds.
# '#' is a mark for a pause here: never a word, but the end of a sentence.
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

# Runs are what cross-validation will never split. Taking some keeps every id as it was.
two = story.take(["run-2", "run-5"])
print(f"Two runs of it: {len(two.sentences)} sentences, the last is {two.sentences.ids[-1]}")
