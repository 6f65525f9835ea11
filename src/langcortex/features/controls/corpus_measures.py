"""Features from the measures that a corpus comes with."""

from __future__ import annotations

from langcortex.datasets.measures import Measure
from langcortex.errors import AlignmentError
from langcortex.features.pieces import fill_with_run_mean, tabulate_sentences, tabulate_words
from langcortex.features.table import Features
from langcortex.stimulus.story import Story


def tabulate_measure(measure: Measure, story: Story) -> Features:
    """Match a measure of a corpus to the units of a story, by id.

    A word without a value (an unvoiced word has no pitch) gets the mean of its run.

    Parameters
    ----------
    measure : of words, or of sentences

    Raises
    ------
    AlignmentError : the corpus has no row for a unit of the story
    StoryError : a run has no value at all
    """
    where = {name: i for i, name in enumerate(measure.ids.tolist())}
    has_sentences = story.sentences.ids[0] in where and story.ids[0] not in where
    units = story.sentences if has_sentences else story.words
    missing = [i for i in units.ids.tolist() if i not in where]
    if missing:
        raise AlignmentError(
            f"The corpus has no '{measure.name}' for {len(missing)} of {len(units)} units, first '{missing[0]}'."
        )
    values = measure.values[[where[i] for i in units.ids.tolist()]]
    if has_sentences:
        return tabulate_sentences(measure.name, story, values, measure.combine)
    return tabulate_words(
        measure.name, story, fill_with_run_mean(values, story, measure.name), measure.combine
    )
