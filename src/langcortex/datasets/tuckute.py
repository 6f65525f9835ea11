"""Tuckute 2024: responses of the language network to single six-word sentences, a row a participant, item and region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from langcortex.datasets.corpus import Reading
from langcortex.datasets.sentence_tables import (
    Answers,
    SentenceTable,
    numbers,
    only_file,
    read_csv,
    several_names,
)
from langcortex.errors import RecordingError, SettingsError, StoryError

TRAIN = ("848", "853", "865", "875", "876")
"""Participants on whose responses to 1000 baseline sentences the authors' model was fitted."""

EVALUATION = ("797", "841", "880", "837", "856")
"""Participants who saw the sentences that were chosen to drive and suppress responses."""


def corpus(
    path: Path,
    reading: Reading,
    file: str = "",
    cond: str | list[str] = "",
    roi: str | list[str] = "",
    normalised: bool = True,
    run: str = "",
) -> Tuckute:
    """Open the table of participants.

    Parameters
    ----------
    path : ``brain-lang-data_participant_20230728.csv``, or its folder
    file : which .csv of the folder
    cond : keep only these conditions, of B (baseline), D (drive) and S (suppress); all when empty
    roi : the regions to take as targets, such as "lang_LH_netw"; all when empty
    normalised : take responses z-scored within session (``response_target``), not ``response_target_non_norm``
    run : a column whose values become runs, which folds do not split. By default all sentences are in one run,
        "sentences": each was shown alone, so that any block of them can be held out
    """
    source = only_file(Path(path), file, "brain-lang-data_participant_*.csv")
    return Tuckute(source, several_names(cond, "cond"), several_names(roi, "roi"), normalised, run, reading)


@dataclass(frozen=True, eq=False)
class Tuckute(SentenceTable):
    """Sentences of six words and the responses of each participant's regions to them.

    The columns used are those that the authors' code and column dictionary name (item_id, sentence, cond,
    target_UID, roi, response_target, response_target_non_norm); the file itself was not at hand, and no other
    column is asked for. Sentences stand in the order of the file.

    Attributes
    ----------
    path : the .csv
    cond, roi : what to keep; all when empty
    normalised : whether responses are z-scored
    run : the column whose values are runs; one run when empty
    reading : which participants
    """

    seconds: ClassVar[float] = 2.0
    name: ClassVar[str] = "tuckute-2024"

    path: Path
    cond: Sequence[str] = ()
    roi: Sequence[str] = ()
    normalised: bool = True
    run: str = ""
    reading: Reading = field(default_factory=Reading)

    def sentences(self) -> pd.DataFrame:
        """List the items."""
        items = self._table.drop_duplicates(["item_id", "sentence"])
        twice = items.item_id[items.item_id.duplicated()]
        if len(twice):
            raise StoryError(f"{self.path} has two sentences under item_id {twice.iloc[0]}. Fetch it again.")
        run = items[self.run] if self.run else "sentences"
        return pd.DataFrame({"stimulus": items.item_id, "text": items.sentence, "run": run})

    def found(self) -> list[str]:
        """List every participant."""
        return list(dict.fromkeys(self._table.target_UID.tolist()))

    def answers(self, subject: str) -> Answers:
        """Give one participant's responses: a row an item, a column a region."""
        mine = self._table[self._table.target_UID == subject]
        twice = mine.duplicated(["item_id", "roi"])
        if twice.any():
            row = mine[twice].iloc[0]
            raise RecordingError(
                f"{self.path}: participant {subject} has two responses of {row.roi} to item {row.item_id}. Average them first."
            )
        items, regions = list(dict.fromkeys(mine.item_id)), list(dict.fromkeys(mine.roi))
        values = np.full((len(items), len(regions)), np.nan, dtype=np.float32)
        place = pd.Index(items).get_indexer(mine.item_id), pd.Index(regions).get_indexer(mine.roi)
        values[place] = numbers(mine[self._response], self.path)
        return Answers(items, values, regions)

    def citation(self) -> str:
        """Say what to cite."""
        return (
            "Tuckute et al. (2024), Driving and suppressing the human language network using large language models, "
            "Nature Human Behaviour 8, 544–561, doi:10.1038/s41562-023-01783-7."
        )

    def licence(self) -> str:
        """Say under which terms the data may be used."""
        return "The table states no licence; its terms are those of the authors' repository, github.com/gretatuckute/drive_suppress_brains."

    @property
    def _response(self) -> str:
        return "response_target" if self.normalised else "response_target_non_norm"

    @cached_property
    def _table(self) -> pd.DataFrame:
        needed = ["item_id", "sentence", "target_UID", "roi", self._response]
        needed += ["cond"] if self.cond else []
        table = read_csv(self.path, needed + ([self.run] if self.run else []))
        for column, wanted in (("cond", self.cond), ("roi", self.roi)):
            unknown = [name for name in wanted if name not in set(table[column])]
            if unknown:
                have = ", ".join(sorted(set(table[column]))[:20])
                raise SettingsError(
                    f"{self.path} has no {column} '{unknown[0]}' (data.options.{column}). It has: {have}."
                )
            if wanted:
                table = table[table[column].isin(wanted)]
        return table
