"""The corpus of a study: opened by name, with the study's cleaning, words and text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.errors import SettingsError
from langcortex.study.check import check_study
from langcortex.study.corpus import open_corpus, read_words
from langcortex.study.run import run_study
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study
from langcortex.study.subject import read_subject

MakeStudy = Callable[..., Study]
RUNS = ("a", "b", "c")


def test_an_unknown_corpus_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data\.corpus is 'lppp'\. It is \"files\", .*lpp"):
        open_corpus(make_study({"data": {"corpus": "lppp"}}, folder=tmp_path))


def test_a_known_corpus_refuses_patterns_it_would_ignore(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"recording\.files belongs to data\.corpus = \"files\""):
        open_corpus(make_study({"data": {"corpus": "lpp"}, "recording": {"files": "x"}}, folder=tmp_path))


def test_an_option_that_a_corpus_does_not_take_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no option 'lang' \(data\.options\)\. It takes: language, kind"):
        open_corpus(make_study({"data": {"corpus": "lpp", "options": {"lang": "EN"}}}, folder=tmp_path))


def test_cleaning_that_the_study_leaves_open_is_the_corpuss_own(folder: Path, study: MakeStudy) -> None:
    corpus = open_corpus(study(folder, recording={"standardise": False}))
    (recording, *_) = read_subject(corpus, "1")
    assert recording.values.std() < 1.0  # type: ignore[union-attr]
    assert abs(float(np.mean(recording.values))) < 1e-5  # type: ignore[union-attr]  # still detrended


def test_ones_own_text_is_read_by_models_and_what_did_not_align_is_kept(
    folder: Path, study: MakeStudy
) -> None:
    for run in RUNS:
        words = [line.split("\t")[0] for line in (folder / f"words/{run}.tsv").read_text().splitlines()[1:]]
        text = " ".join(w.upper() for w in words if w != "#") + " The end!"
        (folder / f"text_{run}.txt").write_text(text, encoding="utf-8")
    settings = study(folder, story={"text": "text_{run}.txt"})
    story, odd = read_words(settings, open_corpus(settings))
    assert str(story.text[0]) == "W0"
    assert odd is not None
    assert odd.text.tolist() == ["The", "end!"] * 3
    run_study(settings)
    kept = pd.read_csv(settings.output_folder / "text_alignment.tsv", sep="\t")
    assert kept.what.tolist() == ["text without a time"] * 6
    assert (
        check_study(settings, clock="none").facts["text"]
        == "aligned to the timed words; 6 × text without a time"
    )


def test_a_run_that_a_subject_lacks_is_told_by_check_and_in_the_results(
    folder: Path, study: MakeStudy
) -> None:
    """Subject 2 is fitted on two runs where subject 1 has three; both come to the same table."""
    settings = study(folder)
    corpus = open_corpus(settings)
    subject, run = list(corpus.subjects())[-1], RUNS[-1]
    (path,) = [f.path for r, f in corpus.files(subject).items() if r == run]  # type: ignore[attr-defined]
    path.unlink()
    sentence = f"Subject '{subject}' has 2 of 3 runs: '{run}' is missing, and the subject's results rest on the others."
    assert sentence in check_study(settings, clock="none").facts.values()
    assert sentence in run_study(settings).warnings
