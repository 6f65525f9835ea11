"""Time the words of the bundled story as a plausible narrator would read them.

Reads ``src/langcortex/data/story/story.txt`` (``## ...`` comments, ``# run-N`` chapter
heads, then one sentence per line) and writes ``run-N.tsv`` beside it: one row per word
with the columns word, onset, duration (seconds from the run's start) and sentence
(0-based within the run). The TSV is raw: read it with ``quoting=csv.QUOTE_NONE``.
The timing is a seeded model, not a recording; running it again gives the same files.
"""

import math
import random
import re
from pathlib import Path

STORY = Path(__file__).resolve().parents[1] / "src" / "langcortex" / "data" / "story"
SEED = 20240
FIRST_ONSET = 2.0  # s of silence before the first word
CLAUSE_PAUSE = (0.15, 0.25)  # s, after a comma or a quoted question inside a sentence
SENTENCE_PAUSE = (0.4, 1.6)  # s, between sentences
RATE_PERIOD, RATE_DEPTH = 47.0, 0.08  # s, fraction: slow modulation of speech rate

Row = tuple[str, float, float, int]


def read_story(path: Path) -> dict[str, list[str]]:
    """Return the sentences of each run, in the order of the file."""
    runs: dict[str, list[str]] = {}
    current: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("##") or not line.strip():
            continue
        if line.startswith("# "):
            current = runs.setdefault(line[2:].strip(), [])
        else:
            current.append(line)
    return runs


def word_duration(word: str) -> float:
    """Return the unmodulated length of a word in seconds."""
    letters = re.sub(r"[^a-z]", "", word.lower())
    spoken = re.sub(r"(?<![aeiouyl])e$|(?<![aeiouytd])ed$", "", letters)  # silent e
    syllables = max(1, len(re.findall(r"[aeiouy]+", spoken)))
    return 0.09 + 0.14 * syllables + 0.008 * len(letters)


def time_run(sentences: list[str], seed: int) -> list[Row]:
    """Return (word, onset, duration, sentence) for each word of one run."""
    rng = random.Random(seed)
    phase = rng.uniform(0.0, 2.0 * math.pi)
    rows: list[Row] = []
    now = FIRST_ONSET
    for number, sentence in enumerate(sentences):
        words = sentence.split(" ")
        for position, word in enumerate(words, start=1):
            angle = 2.0 * math.pi * now / RATE_PERIOD + phase
            slowing = 1.0 + RATE_DEPTH * math.sin(angle)
            duration = round(word_duration(word) * slowing, 3)
            rows.append((word, now, duration, number))
            pause = 0.0
            if position == len(words):
                pause = rng.uniform(*SENTENCE_PAUSE)
            elif word.rstrip('"')[-1:] in (",", "?", "!"):
                pause = rng.uniform(*CLAUSE_PAUSE)
            now = round(now + duration + pause, 3)
    return rows


def main() -> None:
    """Write one TSV per run and print its size."""
    for index, (run, sentences) in enumerate(read_story(STORY / "story.txt").items()):
        rows = time_run(sentences, SEED + index)
        lines = ["word\tonset\tduration\tsentence"]
        lines += [f"{w}\t{onset:.3f}\t{dur:.3f}\t{s}" for w, onset, dur, s in rows]
        text = "\n".join(lines) + "\n"
        (STORY / f"{run}.tsv").write_text(text, encoding="utf-8", newline="\n")
        end = rows[-1][1] + rows[-1][2]
        print(f"{run}: {len(rows)} words, {len(sentences)} sentences, {end:.1f} s")


if __name__ == "__main__":
    main()
