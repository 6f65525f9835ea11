"""The clock of a study: the lag between words and responses in a sample of recordings, and the error where it is off."""

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
    """Choose a few recordings, (subject, run), spread over subjects and runs."""
    remaining = {subject: list(corpus.runs(subject)) for subject in subjects}
    used: Counter[str] = Counter()
    out: list[tuple[str, str]] = []
    while len(out) < n and any(remaining.values()):
        for subject in [s for s in subjects if remaining[s]][: n - len(out)]:
            run = min(remaining[subject], key=lambda name: used[name])
            remaining[subject].remove(run)
            used[run] += 1
            out.append((subject, run))
    return out


def find_sampled_lag(study: Study, corpus: Corpus, story: Story, subjects: Sequence[str]) -> Lag | None:
    """Find the lag between words and responses in a few recordings of a corpus; None where it cannot be found."""
    pairs = []
    for subject, run in sample_recordings(corpus, subjects):
        recording = corpus.recording(subject, run)
        if isinstance(recording, Recording):
            pairs.append((subject_story(study, corpus, story, subject), recording))
    return find_lag(pairs)


def raise_clock_error(lag: Lag) -> None:
    """Raise the error of a study whose clock is off.

    Raises
    ------
    AlignmentError : always, with the lag that was found
    """
    raise AlignmentError(
        f'{lag.summary} If the clock is right all the same, say so with recording.clock = "report".'
    )
