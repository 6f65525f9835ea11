"""BIDS: names are parsed into entities, and any table of events is read or refused."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langcortex.datasets import bids
from langcortex.errors import StoryError

MNI = "space-MNI152NLin2009cAsym"


@pytest.mark.parametrize(
    ("name", "entities", "suffix", "extension"),
    [
        (f"sub-01_ses-a_task-t_run-1_{MNI}_res-2_desc-preproc_bold.nii.gz", "sub ses task run space res desc", "bold", ".nii.gz"),
        ("sub-01_task-t_hemi-L_space-fsaverage5_bold.func.gii", "sub task hemi space", "bold", ".func.gii"),
        ("sub-001_task-pieman_run-1_space-fsaverage6_hemi-L.func.gii", "sub task run space hemi", "", ".func.gii"),
        ("sub-001_task-pieman_space-fsaverage6_hemi-R_desc-clean.func.gii", "sub task space hemi desc", "", ".func.gii"),
        ("sub-01_task-t_space-fsLR_den-91k_bold.dtseries.nii", "sub task space den", "bold", ".dtseries.nii"),
        ("sub-01_task-t_desc-confounds_regressors.tsv", "sub task desc", "regressors", ".tsv"),
    ],
)  # fmt: skip
def test_a_name_is_parsed_into_its_entities(name: str, entities: str, suffix: str, extension: str) -> None:
    file = bids.parse_name(Path("x") / name)
    assert file is not None
    assert (" ".join(file.entities), file.suffix, file.extension) == (entities, suffix, extension)


@pytest.mark.parametrize(
    "name",
    ["README", "sub-01_notes_bold.nii.gz", "sub-_bold.nii", ".DS_Store", "._x", "", "sub-1_sub-2_bold.nii"],
)
def test_other_names_are_no_bids_names_or_have_no_entities(name: str) -> None:
    file = bids.parse_name(Path("x") / name)
    assert file is None or not file.entities


@given(st.text(alphabet=string.ascii_letters + string.digits + "_-. é", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_name_can_be_parsed(name: str) -> None:
    file = bids.parse_name(Path("folder") / (name.replace("/", "") or "x"))
    assert file is None or all(file.entities.values())


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_table_of_events_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("events") / "events.tsv"
    path.write_bytes(b"onset\tduration\ttrial_type\n" + content)
    try:
        table = bids.read_events(path)
        bids.select_words(table)
        bids.find_stimulus_onset(table, path)
    except StoryError as error:
        assert str(path) in str(error)  # noqa: PT017
