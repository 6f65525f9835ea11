"""Le Petit Prince's annotation of one language: the story, and the trees and chains tied to its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.datasets.lpp import words as lpp_words
from langcortex.datasets.lpp.text import REPAIRS, make_story, mended_labels, phrase_at, phrase_numbers
from langcortex.datasets.lpp.words import SECTIONS, Tree
from langcortex.errors import SettingsError, StoryError
from langcortex.stimulus.story import Story, read_story

WORDS = ("table", "textgrid", "textgrid-raw")
# language → rows: there the lemmas, and so the trees, dependencies and coreference, stand one row too low
SLIPPED = {"EN": (6765, 6775)}


@dataclass(frozen=True, eq=False)
class Annotation:
    """The annotation files of one language (ds003643, ``annotation/{L}``).

    Words of the table carry the trees' sentences. Every word knows its pause group (`Story.phrase`): a word of the
    table belongs to the group of the TextGrid that its midpoint falls into, or the nearer one. It knows, too, the
    rows or labels it was made of (`Story.covers`): "section4/row-05068" is row 5068 of the table, counted from 0
    as in its first column; "section4/label-0042" is "section4/word-0042" of ``words = "textgrid-raw"``.

    English was checked whole. French TextGrids have no end marks, so their sentences are pause groups; the French
    table and all Chinese files were never seen, and are read by the same rules.

    Attributes
    ----------
    folder : ``annotation/{L}``
    language : "EN", "CN" or "FR"
    words : "table", "textgrid" (repaired) or "textgrid-raw" (as `langcortex.stimulus.story.read_story` reads them)
    sentences : "auto" or "column" for the trees', "pauses"
    """

    folder: Path
    language: str
    words: str = "table"
    sentences: str = "auto"

    def path(self, name: str) -> Path:
        """Name a file, e.g. ``path("tree.csv")`` for ``lppEN_tree.csv``."""
        return self.folder / f"lpp{self.language}_{name}"

    @property
    def story(self) -> Story:
        """The words, in nine runs "section1" to "section9".

        Raises
        ------
        StoryError : a file is missing or broken, two files do not fit each other, or the files do not have
            the sentences that are asked for
        """
        return self._mended[0]

    @property
    def repairs(self) -> pd.DataFrame:
        """Every label whose text is not as published: run, row (its id), label, text, why."""
        return self._mended[1]

    @cached_property
    def groups(self) -> Story:
        """The TextGrids' labels as they are; its phrases are the pause groups."""
        return self._read_textgrids("pauses")

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The word table, see `lpp_words.read_words`; its lemmas 6765 to 6775 in English belong a row higher."""
        return lpp_words.read_words(self.path("word_information.csv"))

    def word_information(self) -> pd.DataFrame:
        """Give `rows` and `word_id`, the story's word each row became a part of; "" where it became none."""
        return self.rows.assign(word_id=self._word_of_row)

    def trees(self) -> dict[str, Tree]:
        """Give the trees: sentence id of the story → tree."""
        self._hold_sentences()
        runs = self.rows["run"].to_numpy()[self._first_leaf]
        number = self._sentence_of_row[self._first_leaf]
        return {f"{r}/sentence-{n:03d}": tree for r, n, tree in zip(runs, number, self._trees, strict=True)}

    def leaves(self) -> pd.DataFrame:
        """Give the numbers of the word table, which count and describe the trees' leaves rather than its words.

        In English every top_down is the count of brackets that open at the leaf, every bottom_up of those that
        close after it, and every logfreq goes with the lemma (checked on all 15,376 rows).

        Returns
        -------
        (n_rows,) word_id, the story's word each leaf is a part of ("" for none); and, where the file has them, logfreq,
        top_down, bottom_up, left_corner
        """
        numbers = [name for name in lpp_words.NUMBERS if name in self.rows]
        return self.rows[numbers].assign(word_id=[self._word_of_row[i] for i in self._row_of_leaf])

    def parsed(self) -> list[Tree]:
        """Give the trees in order, their leaves those of `leaves`, whatever the story's sentences are."""
        return list(self._trees)

    def dependencies(self) -> pd.DataFrame:
        """Read which word depends on which.

        Returns
        -------
        (n_relations,) sentence, its id in the story; relation; head and dependent, the ids of words, with a space
        between where a token is several. The root's head is "". Where a word covers two rows ("can't"), both ends of
        a relation may be the same word

        Raises
        ------
        StoryError : the file does not fit the trees
        """
        sentences = list(self.trees())
        path = self.path("dependency.csv")
        table = lpp_words.read_dependencies(path)
        given = int(table["sentence"].iloc[-1]) + 1
        if given != len(sentences):
            raise StoryError(
                f"{path} has {given} sentences, {self.path('tree.csv').name} {len(sentences)}. Fetch both again."
            )
        out = []
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
                out.append((sentences[number], relation, word[head], word[tail]))
        return pd.DataFrame(out, columns=pd.Index(["sentence", "relation", "head", "dependent"]))

    def mentions(self) -> pd.DataFrame:
        """Read which words refer to the same thing (English and Chinese only).

        Returns
        -------
        (n_mentions,) the columns of `lpp_words.read_coreference`, and words: the ids of the mention's words, with
        a space between

        Raises
        ------
        StoryError : a mention does not stand where the file says it does
        """
        self._hold_table()
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
        """Read pitch and loudness every 10 ms, see `lpp_words.read_prosody`."""
        return lpp_words.read_prosody(self.path("prosody.csv"))

    @cached_property
    def _mended(self) -> tuple[Story, pd.DataFrame]:
        if self.words == "textgrid-raw":
            raw = self.groups if self._by_pauses else self._read_textgrids(self.sentences)
            return raw, pd.DataFrame(columns=pd.Index(REPAIRS))
        if self.sentences == "punctuation" or (self.sentences == "column" and self.words == "textgrid"):
            what = "end marks" if self.sentences == "punctuation" else "sentences in the TextGrids"
            raise StoryError(
                f'Le Petit Prince ({self.language}) has no {what}. Set story.sentences to "pauses", or to "auto" with '
                'data.options.words = "table" for the sentences of its trees.'
            )
        runs, repairs, left_out = {}, [], {}
        for run in SECTIONS:
            labels = self._rows_of(run) if self.words == "table" else self._labels_of(run)
            runs[run], mends = mended_labels(labels, self.language)
            repairs.append(mends)
            used = sum(len(ids.split()) for ids in runs[run]["covers"])
            left_out[run] = len(labels) - used + (self.words == "textgrid") * self.groups.left_out[run]
        sentences = "phrase" if self._by_pauses else "sentence"
        return make_story(f"lpp{self.language}", runs, sentences, left_out), pd.concat(
            repairs, ignore_index=True
        )

    @property
    def _by_pauses(self) -> bool:
        return self.sentences == "pauses" or (self.sentences == "auto" and self.words != "table")

    def _read_textgrids(self, sentences: str) -> Story:
        files = {run: self.path(f"{run}.TextGrid") for run in SECTIONS}
        story = read_story(files, f"lpp{self.language}", sentences)
        if self._by_pauses and story.phrase is None:
            raise StoryError(
                f'{files["section1"]} and the others mark no pauses. Set story.sentences to "auto".'
            )
        return story

    def _rows_of(self, run: str) -> pd.DataFrame:
        """Give one section of the table as labels to mend."""
        here = np.flatnonzero(self.rows["run"] == run)
        rows = self.rows.iloc[here]
        return pd.DataFrame(
            {
                "id": [_row_id(run, int(i)) for i in here],
                "run": run,
                "label": rows["word"].to_numpy(),
                "onset": rows["onset"].to_numpy(),
                "end": rows["offset"].to_numpy(),
                "sentence": -1 if self._by_pauses else self._sentence_of_row[here],
                "phrase": phrase_at(self.groups, run, ((rows["onset"] + rows["offset"]) / 2).to_numpy()),
            }
        )

    def _labels_of(self, run: str) -> pd.DataFrame:
        """Give one section's labels in the TextGrid, pauses left out, to mend."""
        here = self.groups.run == run
        return pd.DataFrame(
            {
                "id": [str(i).replace("/word-", "/label-") for i in self.groups.ids[here]],
                "run": run,
                "label": self.groups.text[here],
                "onset": self.groups.onset[here],
                "end": self.groups.onset[here] + self.groups.duration[here],
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
                'must be the same words. Fetch both again, or set story.sentences to "pauses".'
            )
        return trees

    @cached_property
    def _first_leaf(self) -> np.ndarray:
        """Each tree's first row of the table: (n_sentences,)."""
        sizes = [len(tree.leaves) for tree in self._trees]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    @cached_property
    def _sentence_of_row(self) -> np.ndarray:
        """Each row's sentence, counted from 0 in its section: (n_rows,)."""
        sizes = [len(tree.leaves) for tree in self._trees]
        number = np.repeat(np.arange(len(sizes)), sizes)
        first = np.flatnonzero(self.rows["run"] != self.rows["run"].shift())
        within: np.ndarray = number - np.repeat(number[first], np.diff([*first, len(number)]))
        return within

    @cached_property
    def _word_of_row(self) -> list[str]:
        """Each row's word in the story: (n_rows,) ids; "" for a row that is no word."""
        self._hold_table()
        story = self.story
        covers = story.covers if story.covers is not None else story.ids
        word = {row: str(i) for i, rows in zip(story.ids, covers, strict=True) for row in str(rows).split()}
        return [word.get(_row_id(run, i), "") for i, run in enumerate(self.rows["run"])]

    @cached_property
    def _row_of_leaf(self) -> np.ndarray:
        """The row of the table that each leaf of the trees, and each lemma, belongs to: (n_rows,)."""
        rows = np.arange(len(self.rows))
        first, last = SLIPPED.get(self.language, (0, -1))
        if self._slips(first):
            rows[first : last + 1] -= 1
        return rows

    def _words_of(self, leaves: Sequence[int]) -> str:
        """Name the words of some leaves of the trees, or lemmas, each once."""
        rows = self._row_of_leaf[list(leaves)]
        return " ".join(dict.fromkeys(self._word_of_row[i] for i in rows if self._word_of_row[i]))

    def _slips(self, first: int) -> bool:
        """Say whether the lemmas stand a row too low from this row on, as in the published table."""
        if not 0 < first < len(self.rows) or "lemma" not in self.rows:
            return False
        lemma, word = self.rows["lemma"].iloc[first], self.rows["word"]
        return bool(lemma == word.iloc[first - 1] and lemma != word.iloc[first])

    def _hold_table(self) -> None:
        if self.words != "table":
            raise SettingsError(
                f"Trees, dependencies and mentions belong to the words of {self.path('word_information.csv').name}. "
                'Set data.options.words = "table".'
            )

    def _hold_sentences(self) -> None:
        self._hold_table()
        if self._by_pauses:
            raise SettingsError(
                'Trees and dependencies belong to the trees\' sentences. Set story.sentences to "auto".'
            )


def _row_id(run: str, row: int) -> str:
    return f"{run}/row-{row:05d}"
