"""Whether recordings follow the words of a study: the lag of a sample of recordings, and its refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from langcortex.brain.recording import Recording
from langcortex.datasets import Corpus
from langcortex.design.lag import Lag, find_lag
from langcortex.errors import AlignmentError
from langcortex.stimulus.story import Story
from langcortex.study.settings import Study
from langcortex.study.subject import subject_story


def sample_recordings(corpus: Corpus, subjects: Sequence[str], n: int = 8) -> list[tuple[str, str]]:
    """Pick recordings that speak for a corpus's clock: a few (subject, run), spread over subjects and runs."""
    left = {subject: list(corpus.runs(subject)) for subject in subjects}
    used: Counter[str] = Counter()
    out: list[tuple[str, str]] = []
    while len(out) < n and any(left.values()):
        for subject in [s for s in subjects if left[s]][: n - len(out)]:
            run = min(left[subject], key=lambda name: used[name])
            left[subject].remove(run)
            used[run] += 1
            out.append((subject, run))
    return out


def find_sampled_lag(study: Study, corpus: Corpus, story: Story, subjects: Sequence[str]) -> Lag | None:
    """Look at a few recordings of a corpus: do responses come when the words say they should?"""
    pairs = []
    for subject, run in sample_recordings(corpus, subjects):
        recording = corpus.recording(subject, run)
        if isinstance(recording, Recording):
            pairs.append((subject_story(study, corpus, story, subject), recording))
    return find_lag(pairs)


def raise_clock_error(lag: Lag) -> None:
    """Stop a study whose clock is off.

    Raises
    ------
    AlignmentError : always, with the lag that fits
    """
    raise AlignmentError(
        f'{lag.summary} If the clock is right all the same, say so with recording.clock = "report".'
    )
