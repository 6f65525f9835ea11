"""The annotation of Le Petit Prince in one language: the story, with the trees and coreference of its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.datasets.lpp import words as lpp_words
from langcortex.datasets.lpp.text import REPAIRS, find_phrases, make_story, phrase_numbers, repair_labels
from langcortex.datasets.lpp.words import SECTIONS, Tree
from langcortex.errors import SettingsError, StoryError
from langcortex.stimulus.story import Story, assemble_story
from langcortex.stimulus.textgrid import read_textgrid

WORDS = ("table", "textgrid", "textgrid-raw")
# language → rows whose lemmas, and so trees, dependencies and coreference, are one row too low
SHIFTED_LEMMAS = {"EN": (6765, 6775)}


@dataclass(frozen=True, eq=False)
class Annotation:
    """The annotation files of one language (ds003643, ``annotation/{L}``).

    The sentences of words in the table are those of the trees. Each word has a pause group (`Story.phrase`): a word
    of the table is in the group of the TextGrid that contains its midpoint, or the nearest one. It also has the ids
    of its rows or labels (`Story.covers`): "section4/row-05068" is row 5068 of the table, counted from 0 as in its
    first column; "section4/label-0042" is "section4/word-0042" of ``words = "textgrid-raw"``.

    All of the English annotation was checked. French TextGrids have no end marks, so sentences are pause groups; the
    French table and all Chinese files were not at hand, and are read by the same rules.

    Attributes
    ----------
    folder : ``annotation/{L}``
    language : "EN", "CN" or "FR"
    words : "table", "textgrid" (repaired) or "textgrid-raw" (every label that is no pause)
    sentences : "auto" or "column" for those of the trees, or "pauses"
    """

    folder: Path
    language: str
    words: str = "table"
    sentences: str = "auto"

    def path(self, name: str) -> Path:
        """Return the path of a file, e.g. ``path("tree.csv")`` for ``lppEN_tree.csv``."""
        return self.folder / f"lpp{self.language}_{name}"

    @property
    def story(self) -> Story:
        """The words, in nine runs "section1" to "section9".

        Raises
        ------
        StoryError : a file is missing or damaged, two files do not match, or no file has the chosen sentences
        """
        return self._repaired[0]

    @property
    def repairs(self) -> pd.DataFrame:
        """The labels whose text was changed: run, row (id of the label), label, text, why."""
        return self._repaired[1]

    @cached_property
    def groups(self) -> Story:
        """The unrepaired labels of the TextGrids; the phrases are the pause groups."""
        return self._read_textgrids("pauses")

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The word table, see `lpp_words.read_words`; the English lemmas 6765 to 6775 belong one row higher."""
        return lpp_words.read_words(self.path("word_information.csv"))

    def word_information(self) -> pd.DataFrame:
        """Return `rows` with `word_id`, the word of the story that each row is part of, "" for none."""
        return self.rows.assign(word_id=self._word_of_row)

    def trees(self) -> dict[str, Tree]:
        """Return the trees: sentence id of the story → tree."""
        self._check_sentences()
        runs = self.rows["run"].to_numpy()[self._first_leaf]
        number = self._sentence_of_row[self._first_leaf]
        return {f"{r}/sentence-{n:03d}": tree for r, n, tree in zip(runs, number, self._trees, strict=True)}

    def leaves(self) -> pd.DataFrame:
        """Return the numbers of the word table, which describe the leaves of trees rather than words.

        In English, top_down is the number of brackets that open at the leaf, bottom_up of those that close after
        it, and logfreq is that of the lemma (checked on all 15,376 rows).

        Returns
        -------
        (n_rows,) word_id, the word of the story that each leaf is part of ("" for none); and, if the file has them,
        logfreq, top_down, bottom_up, left_corner
        """
        numbers = [name for name in lpp_words.NUMBERS if name in self.rows]
        return self.rows[numbers].assign(word_id=[self._word_of_row[i] for i in self._row_of_leaf])

    def parsed(self) -> list[Tree]:
        """Return the trees in order, with the leaves of `leaves`, whatever the sentences of the story are."""
        return list(self._trees)

    def dependencies(self) -> pd.DataFrame:
        """Read the dependencies between words.

        Returns
        -------
        (n_relations,) sentence, an id of the story; relation; head and dependent, ids of words, separated by spaces
        where a token is several words. The head of the root is "". If a word covers two rows ("can't"), both ends of
        a relation may be the same word

        Raises
        ------
        StoryError : the file does not match the trees
        """
        sentences = list(self.trees())
        path = self.path("dependency.csv")
        table = lpp_words.read_dependencies(path)
        n_sentences = int(table["sentence"].iloc[-1]) + 1
        if n_sentences != len(sentences):
            raise StoryError(
                f"{path} has {n_sentences} sentences, {self.path('tree.csv').name} {len(sentences)}. Fetch both again."
            )
        relations = []
        for number, rows in table.groupby("sentence", sort=False):
            size = len(self._trees[number].leaves)
            too_long = int(rows[["head", "dependent"]].to_numpy().max()) > size
            leaves = {} if too_long else lpp_words.leaves_of_tokens(rows)
            if too_long or max((at.stop for at in leaves.values()), default=0) > size:
                raise StoryError(
                    f"{path}: sentence {number + 1} has more words than the {size} of its tree. Fetch both again."
                )
            first = self._first_leaf[number]
            word = {0: ""} | {k: self._words_of([first + i for i in at]) for k, at in leaves.items()}
            for relation, head, tail in zip(rows["relation"], rows["head"], rows["dependent"], strict=True):
                relations.append((sentences[number], relation, word[head], word[tail]))
        return pd.DataFrame(relations, columns=pd.Index(["sentence", "relation", "head", "dependent"]))

    def mentions(self) -> pd.DataFrame:
        """Read the mentions of coreferent words (English and Chinese only).

        Returns
        -------
        (n_mentions,) the columns of `lpp_words.read_coreference`, and words: the ids of the words of the mention,
        separated by spaces

        Raises
        ------
        StoryError : a mention is not at the characters that the file states
        """
        self._check_words()
        path = self.path("coreference.csv")
        table = lpp_words.read_coreference(path)
        lemmas = self.rows["lemma"].tolist() if "lemma" in self.rows else []
        text = " ".join(lemmas)
        length = np.array([len(lemma) for lemma in lemmas], dtype=np.int64)
        end = np.cumsum(length + 1) - 1
        words = []
        for m in table.itertuples(index=False):
            if text[m.start : m.end] != m.text:
                raise StoryError(
                    f"{path}: mention {m.id} is not at characters {m.start} to {m.end} of the lemmas in "
                    f"{self.path('word_information.csv').name}. Fetch both again."
                )
            words.append(self._words_of(np.flatnonzero((end > m.start) & (end - length < m.end)).tolist()))
        return table.assign(words=words)

    def prosody(self) -> pd.DataFrame:
        """Read pitch and loudness in steps of 10 ms, see `lpp_words.read_prosody`."""
        return lpp_words.read_prosody(self.path("prosody.csv"))

    @cached_property
    def _repaired(self) -> tuple[Story, pd.DataFrame]:
        """The story and the repairs."""
        if self.words == "textgrid-raw":
            raw = self.groups if self._by_pauses else self._read_textgrids(self.sentences)
            return raw, pd.DataFrame(columns=pd.Index(REPAIRS))
        if self.sentences == "punctuation" or (self.sentences == "column" and self.words == "textgrid"):
            missing = "end marks" if self.sentences == "punctuation" else "sentences in the TextGrids"
            raise StoryError(
                f'Le Petit Prince ({self.language}) has no {missing}. Set story.sentences to "pauses", or to "auto" with '
                'data.options.words = "table" for the sentences of its trees.'
            )
        runs, repairs, left_out = {}, [], {}
        for run in SECTIONS:
            labels = self._table_labels(run) if self.words == "table" else self._textgrid_labels(run)
            runs[run], run_repairs = repair_labels(labels, self.language)
            repairs.append(run_repairs)
            n_covered = sum(len(ids.split()) for ids in runs[run]["covers"])
            n_pauses = self.groups.left_out[run] if self.words == "textgrid" else 0
            left_out[run] = len(labels) - n_covered + n_pauses
        sentences = "phrase" if self._by_pauses else "sentence"
        story = make_story(f"lpp{self.language}", runs, sentences, left_out)
        return story, pd.concat(repairs, ignore_index=True)

    @property
    def _by_pauses(self) -> bool:
        return self.sentences == "pauses" or (self.sentences == "auto" and self.words != "table")

    def _read_textgrids(self, sentences: str) -> Story:
        files = {run: self.path(f"{run}.TextGrid") for run in SECTIONS}
        tables = {run: read_textgrid(path, None) for run, path in files.items()}
        language = {"CN": "zh"}.get(self.language, self.language.lower())
        story = assemble_story(tables, f"lpp{self.language}", sentences, language=language, keep_marks=True)
        if self._by_pauses and story.phrase is None:
            raise StoryError(
                f'{files["section1"]} and those of other sections mark no pauses. Set story.sentences to "auto".'
            )
        return story

    def _table_labels(self, run: str) -> pd.DataFrame:
        """Return the rows of one section of the table as labels to repair."""
        positions = np.flatnonzero(self.rows["run"] == run)
        rows = self.rows.iloc[positions]
        midpoint = (rows["onset"] + rows["offset"]) / 2
        return pd.DataFrame(
            {
                "id": [_row_id(run, int(i)) for i in positions],
                "run": run,
                "label": rows["word"].to_numpy(),
                "onset": rows["onset"].to_numpy(),
                "end": rows["offset"].to_numpy(),
                "sentence": -1 if self._by_pauses else self._sentence_of_row[positions],
                "phrase": find_phrases(self.groups, run, midpoint.to_numpy()),
            }
        )

    def _textgrid_labels(self, run: str) -> pd.DataFrame:
        """Return the labels of one section in the TextGrid, without pauses, to repair."""
        in_run = self.groups.run == run
        return pd.DataFrame(
            {
                "id": [str(i).replace("/word-", "/label-") for i in self.groups.ids[in_run]],
                "run": run,
                "label": self.groups.text[in_run],
                "onset": self.groups.onset[in_run],
                "end": self.groups.onset[in_run] + self.groups.duration[in_run],
                "sentence": -1,
                "phrase": phrase_numbers(self.groups, run),
            }
        )

    @cached_property
    def _trees(self) -> list[Tree]:
        trees = lpp_words.read_trees(self.path("tree.csv"))
        leaves = sum(len(tree.leaves) for tree in trees)
        if leaves != len(self.rows):
            raise StoryError(
                f"{self.path('tree.csv')} has {leaves} words, {self.path('word_information.csv').name} {len(self.rows)} rows; they "
                'must be equally many. Fetch both again, or set story.sentences to "pauses".'
            )
        return trees

    @cached_property
    def _first_leaf(self) -> np.ndarray:
        """The first row in the table of each tree: (n_sentences,)."""
        sizes = [len(tree.leaves) for tree in self._trees]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    @cached_property
    def _sentence_of_row(self) -> np.ndarray:
        """The sentence of each row, counted from 0 in its section: (n_rows,)."""
        sizes = [len(tree.leaves) for tree in self._trees]
        number = np.repeat(np.arange(len(sizes)), sizes)
        first = np.flatnonzero(self.rows["run"] != self.rows["run"].shift())
        within: np.ndarray = number - np.repeat(number[first], np.diff([*first, len(number)]))
        return within

    @cached_property
    def _word_of_row(self) -> list[str]:
        """The word of each row in the story: (n_rows,) ids; "" for a row that is no word."""
        self._check_words()
        story = self.story
        covers = story.covers if story.covers is not None else story.ids
        word = {row: str(i) for i, rows in zip(story.ids, covers, strict=True) for row in str(rows).split()}
        return [word.get(_row_id(run, i), "") for i, run in enumerate(self.rows["run"])]

    @cached_property
    def _row_of_leaf(self) -> np.ndarray:
        """The row in the table of each leaf and lemma: (n_rows,)."""
        rows = np.arange(len(self.rows))
        first, last = SHIFTED_LEMMAS.get(self.language, (0, -1))
        if self._are_shifted(first):
            rows[first : last + 1] -= 1
        return rows

    def _words_of(self, leaves: Sequence[int]) -> str:
        """Return the ids of the words of some leaves or lemmas, each once, separated by spaces."""
        rows = self._row_of_leaf[list(leaves)]
        return " ".join(dict.fromkeys(self._word_of_row[i] for i in rows if self._word_of_row[i]))

    def _are_shifted(self, first: int) -> bool:
        """Whether the lemmas are one row too low from this row on, as in the published table."""
        if not 0 < first < len(self.rows) or "lemma" not in self.rows:
            return False
        lemma, word = self.rows["lemma"].iloc[first], self.rows["word"]
        return bool(lemma == word.iloc[first - 1] and lemma != word.iloc[first])

    def _check_words(self) -> None:
        if self.words != "table":
            raise SettingsError(
                f"Trees, dependencies and mentions belong to the words of {self.path('word_information.csv').name}. "
                'Set data.options.words = "table".'
            )

    def _check_sentences(self) -> None:
        self._check_words()
        if self._by_pauses:
            raise SettingsError(
                'Trees and dependencies need the sentences of the trees. Set story.sentences to "auto".'
            )


def _row_id(run: str, row: int) -> str:
    return f"{run}/row-{row:05d}"
