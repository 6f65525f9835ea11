"""One subject of a study: its story, its recordings, and its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from langcortex.brain.recording import Recording, Responses, average_recordings
from langcortex.brain.timing import candidate_delays
from langcortex.datasets import Corpus
from langcortex.design.design import HRF, Delays, Design, align_responses, align_scans, align_sentences
from langcortex.errors import AlignmentError, SettingsError
from langcortex.features import Features
from langcortex.stimulus.story import Story
from langcortex.stimulus.written_text import add_sentence_marks
from langcortex.study.settings import Study
from langcortex.study.user_code import load_object

Runs = list[Recording] | list[Responses]


def subject_story(study: Study, corpus: Corpus, story: Story, subject: str) -> Story:
    """Return the story in the study's rows, with this subject's times where everyone read at their own pace."""
    if hasattr(corpus, "story_of") and subject != "average":
        story = corpus.story_of(subject)
        story = add_sentence_marks(story) if study.story.written else story
    return story.group_by(study.design.rows)


def absent_runs(story: Story, subject: str, runs: Sequence[str]) -> list[str]:
    """Return a sentence about the story's runs that a subject has no recording of; none where all were recorded."""
    absent = [run for run in story.runs if run not in set(runs)]
    if not absent or subject == "average":
        return []
    return [
        f"Subject '{subject}' has no recording of {len(absent)} of {len(story.runs)} runs ({', '.join(absent)}): its scores come from the others."
    ]


def read_subject(corpus: Corpus, subject: str) -> Runs:
    """Read every run of one subject."""
    return [corpus.recording(subject, run) for run in corpus.runs(subject)]  # type: ignore[return-value]  # a corpus has one kind


def iterate_subjects(study: Study, corpus: Corpus, subjects: Sequence[str]) -> Iterator[tuple[str, Runs]]:
    """Read one subject after the other, and yield their average at the end if the study wants it."""
    with_average = study.recording.average and len(subjects) > 1
    if with_average and hasattr(corpus, "story_of"):
        raise SettingsError(
            "recording.average: every subject read at their own pace, so there is no mean over subjects."
        )
    by_run: dict[str, list[Recording]] = {}
    for subject in subjects:
        recordings = read_subject(corpus, subject)
        if with_average:
            for recording in recordings:
                if isinstance(recording, Responses):
                    raise SettingsError(
                        "recording.average is for recordings with scans; this corpus has one row per sentence."
                    )
                by_run.setdefault(recording.run, []).append(recording)
        yield subject, recordings
    if with_average:
        yield "average", [average_recordings(runs) for runs in by_run.values()]


def align_subject(study: Study, story: Story, tables: Mapping[str, Features], recordings: Runs) -> Design:
    """Align one subject's recordings as the study's [design] says.

    Parameters
    ----------
    story : from `subject_story`, grouped into the study's rows
    tables : the feature spaces
    recordings : of all runs
    """
    d = study.design
    timed = [r for r in recordings if isinstance(r, Recording)]
    if len(timed) < len(recordings):
        if d.rows == "scans":
            raise SettingsError(
                'design.rows is "scans", but this corpus has no scans: its rows are sentences.'
            )
        return align_responses(story, tables, [r for r in recordings if isinstance(r, Responses)])
    if d.rows != "scans":
        return align_sentences(story, tables, timed, d.delays, d.short)
    if d.response == "fir":
        default = candidate_delays(timed[0].tr, 2.0, 8.0)
        if not d.delays and not default:
            raise AlignmentError(
                f"There is no whole multiple of the TR ({timed[0].tr:g} s) from 2 to 8 s. Set design.delays."
            )
        response: Delays | HRF = Delays(tuple(d.delays) if d.delays else default)
    else:
        response = HRF(load_object(d.response, study) if ":" in d.response else d.response)
    return align_scans(story, tables, timed, response, d.short, d.trim)
