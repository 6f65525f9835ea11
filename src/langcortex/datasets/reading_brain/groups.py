"""The two published groups of readers: what differs in what they were shown, and whom to cite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from langcortex.datasets import bids
from langcortex.datasets.reading_brain.text import LENGTHS, LENGTHS_L2, Key, Lengths

_PAPERS = (
    "Li & Clariana (2019), Journal of Neurolinguistics 50, 94–105, doi:10.1016/j.jneuroling.2018.03.005; "
    "Follmer et al. (2018), Reading and Writing 31, 185–214, doi:10.1007/s11145-017-9781-x"
)


@dataclass(frozen=True)
class Group:
    """A published group of readers.

    Attributes
    ----------
    name : "L1" or "L2"
    accession : its dataset on OpenNeuro
    readers : who they are, and how many
    lengths : number of words shown of each sentence of each article
    citation : what to cite
    """

    name: str
    accession: str
    readers: str
    lengths: Lengths
    citation: str


L1 = Group(
    "L1",
    "ds003974",
    "52 native speakers of English",
    LENGTHS,
    f"Reading Brain, L1 adults: OpenNeuro ds003974 v3.0.0, doi:10.18112/openneuro.ds003974.v3.0.0; {_PAPERS}.",
)
L2 = Group(
    "L2",
    "ds003988",
    "56 native speakers of Mandarin Chinese who read English",
    LENGTHS_L2,
    f"Reading Brain, L2 adults: OpenNeuro ds003988 v1.0.0, doi:10.18112/openneuro.ds003988.v1.0.0; {_PAPERS}; Hsu et al. (2019), "
    "Scientific Reports 9, 1–16, doi:10.1038/s41598-019-47176-7.",
)
_ENOUGH = 5  # readers of a sentence, of whom one would have looked at its last two words


def recognise_group(path: Path, furthest: Mapping[Key, int], readers: Mapping[int, int]) -> Group:
    """Return the group of a folder, by its description, its name, or else by how far readers looked in sentence t.03.16.

    Parameters
    ----------
    path : the folder of the dataset
    furthest : sentence → the highest number of a word that was fixated
    readers : article → how many read it
    """
    description = bids.find_description(path)
    named = " ".join(str(description.get(key, "")) for key in ("Name", "DatasetDOI")) + f" {path.name}"
    for group in (L1, L2):
        if group.accession in named:
            return group
    for group in (L1, L2):
        if group.name in named.replace("_", " ").replace("-", " ").split():
            return group
    key = (3, 16)  # the only sentence whose length differs
    looked = furthest.get(key, 0)
    shown_whole = looked > LENGTHS_L2[key[0] - 1][key[1] - 1]
    return L1 if shown_whole or readers.get(key[0], 0) < _ENOUGH else L2
