"""Measures of a corpus as features."""

from __future__ import annotations

from langcortex.datasets.measures import Measure
from langcortex.errors import AlignmentError
from langcortex.features.pieces import fill_with_run_mean, sentence_pieces, word_pieces
from langcortex.features.table import Features
from langcortex.stimulus.story import Story


def corpus_measure(measure: Measure, story: Story) -> Features:
    """Match what a corpus knows to the pieces of a story, by id.

    A word without a value (an unvoiced word has no pitch) gets the mean of its run.

    Parameters
    ----------
    measure : of words, or of sentences

    Raises
    ------
    AlignmentError : the story has a piece that the corpus says nothing about
    StoryError : a run has no value at all
    """
    where = {name: i for i, name in enumerate(measure.ids.tolist())}
    of_sentence = story.sentences.ids[0] in where and story.ids[0] not in where
    pieces = story.sentences if of_sentence else story.words
    missing = [i for i in pieces.ids.tolist() if i not in where]
    if missing:
        raise AlignmentError(
            f"The corpus has no '{measure.name}' for {len(missing)} of {len(pieces)} pieces, first '{missing[0]}'."
        )
    values = measure.values[[where[i] for i in pieces.ids.tolist()]]
    if of_sentence:
        return sentence_pieces(measure.name, story, values, measure.combine)
    return word_pieces(measure.name, story, fill_with_run_mean(values, story, measure.name), measure.combine)
