"""Tuckute 2024: responses of the language network to sentences of six words, one row per participant, item and region."""

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
    SentenceResponses,
    SentenceTable,
    as_names,
    find_table,
    parse_responses,
    read_csv,
)
from langcortex.errors import RecordingError, SettingsError, StoryError

TRAIN = ("848", "853", "865", "875", "876")
"""Participants whose responses to 1000 baseline sentences the authors' model was fitted to."""


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
    file : the .csv to read, if the folder has several
    cond : the conditions to use, of B (baseline), D (drive) and S (suppress); all when empty
    roi : the regions to use as targets, such as "lang_LH_netw"; all when empty
    normalised : use responses z-scored within session (``response_target``), not ``response_target_non_norm``
    run : a column whose values become runs, which folds do not split. By default all sentences are in one run,
        "sentences": each was shown alone, so that any block of them can be held out
    """
    source = find_table(Path(path), file, "brain-lang-data_participant_*.csv")
    return Tuckute(source, as_names(cond, "cond"), as_names(roi, "roi"), normalised, run, reading)


@dataclass(frozen=True, eq=False)
class Tuckute(SentenceTable):
    """Sentences of six words, and the responses of each participant's regions to them.

    The columns are those of the authors' code and column dictionary (item_id, sentence, cond, target_UID, roi,
    response_target, response_target_non_norm); the file itself was not at hand, and no other column is needed.
    Sentences are in the order of the file.

    Attributes
    ----------
    path : the .csv
    cond, roi : the conditions and regions to use; all when empty
    normalised : whether responses are z-scored
    run : the column whose values are runs; one run when empty
    reading : the participants
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
        duplicates = items.item_id[items.item_id.duplicated()]
        if len(duplicates):
            raise StoryError(
                f"{self.path} has two sentences under item_id {duplicates.iloc[0]}. Fetch it again."
            )
        run = items[self.run] if self.run else "sentences"
        return pd.DataFrame({"stimulus": items.item_id, "text": items.sentence, "run": run})

    def all_subjects(self) -> list[str]:
        """List all participants."""
        return list(dict.fromkeys(self._table.target_UID.tolist()))

    def responses(self, subject: str) -> SentenceResponses:
        """Read the responses of one participant: one row per item, one column per region."""
        rows = self._table[self._table.target_UID == subject]
        duplicates = rows.duplicated(["item_id", "roi"])
        if duplicates.any():
            row = rows[duplicates].iloc[0]
            raise RecordingError(
                f"{self.path}: participant {subject} has two responses of {row.roi} to item {row.item_id}. Average them first."
            )
        items, regions = list(dict.fromkeys(rows.item_id)), list(dict.fromkeys(rows.roi))
        values = np.full((len(items), len(regions)), np.nan, dtype=np.float32)
        cells = pd.Index(items).get_indexer(rows.item_id), pd.Index(regions).get_indexer(rows.roi)
        values[cells] = parse_responses(rows[self._response], self.path)
        return SentenceResponses(items, values, regions)

    def citation(self) -> str:
        """Return what to cite."""
        return (
            "Tuckute et al. (2024), Driving and suppressing the human language network using large language models, "
            "Nature Human Behaviour 8, 544–561, doi:10.1038/s41562-023-01783-7."
        )

    def licence(self) -> str:
        """Return the terms of use."""
        return "The table states no licence; its terms are those of the authors' repository, github.com/gretatuckute/drive_suppress_brains."

    @property
    def _response(self) -> str:
        return "response_target" if self.normalised else "response_target_non_norm"

    @cached_property
    def _table(self) -> pd.DataFrame:
        required = ["item_id", "sentence", "target_UID", "roi", self._response]
        required += ["cond"] if self.cond else []
        table = read_csv(self.path, required + ([self.run] if self.run else []))
        for column, choices in (("cond", self.cond), ("roi", self.roi)):
            unknown = [name for name in choices if name not in set(table[column])]
            if unknown:
                available = ", ".join(sorted(set(table[column]))[:20])
                raise SettingsError(
                    f"{self.path} has no {column} '{unknown[0]}' (data.options.{column}). It has: {available}."
                )
            if choices:
                table = table[table[column].isin(choices)]
        return table
