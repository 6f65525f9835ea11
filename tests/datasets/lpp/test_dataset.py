"""Le Petit Prince: the sections of images, the onset of the sound, and the subjects."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langcortex.datasets.corpus import Corpus, Reading, check_options
from langcortex.datasets.lpp import dataset as lpp
from langcortex.datasets.lpp.dataset import RUN_IDS, SCANS, LittlePrince, corpus
from langcortex.datasets.lpp.words import SECTIONS
from langcortex.errors import LangcortexError, RecordingError, SettingsError, StoryError

EN057 = range(15, 24)


def preprocessed(subject: str, run: int) -> str:
    language = subject[:2]
    name = f"sub-{subject}_task-lpp{language}_run-{run:02d}_space-MNIColin27_desc-preproc_bold.nii.gz"
    return f"derivatives/sub-{subject}/func/{name}"


def raw(subject: str, run: int, echo: int) -> str:
    name = f"sub-{subject}_task-lpp{subject[:2]}_run-{run:02d}_echo-{echo}_bold.nii.gz"
    return f"sub-{subject}/func/{name}"


def put(base: Path, *names: str) -> Path:
    """Create files as in a dataset that was not fetched: dangling links."""
    for name in names:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to("../../.git/annex/objects/none")
    return base


def open_at(base: Path, subjects: list[str] | None = None, **options: Any) -> LittlePrince:
    onset = options.pop("stimulus_onset", None)
    return corpus(base, Reading(subjects=subjects, stimulus_onset=onset), **options)


def image(path: Path, scans: int, seed: int, size: int = 3) -> None:
    import nibabel

    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = rng.standard_normal((size, size, size, scans)).astype(np.float32) + 100
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), path)


def test_section_k_is_the_kth_run_of_a_subject(tmp_path: Path) -> None:
    put(tmp_path, *(preprocessed("EN057", run) for run in EN057))
    files = open_at(tmp_path).files("EN057")
    assert tuple(files) == SECTIONS
    assert files["section1"].path == tmp_path / preprocessed("EN057", 15)
    assert files["section9"].path == tmp_path / preprocessed("EN057", 23)
    assert [f.scans for f in files.values()] == list(SCANS["EN", "derivatives"])
    assert {(f.tr, f.stimulus_onset, f.reference) for f in files.values()} == {(2.0, 0.0, None)}


def test_sections_of_a_partly_downloaded_subject_have_the_right_runs(tmp_path: Path) -> None:
    """Section 8 of EN059 is run 14 and section 9 run 17, whatever other files there are."""
    put(tmp_path, *(preprocessed("EN059", run) for run in (14, 17, 9)))
    paths = {run: f.path for run, f in open_at(tmp_path, ["EN059"]).files("EN059").items()}
    assert paths == {
        "section3": tmp_path / preprocessed("EN059", 9),
        "section8": tmp_path / preprocessed("EN059", 14),
        "section9": tmp_path / preprocessed("EN059", 17),
    }


def test_all_subjects_are_those_with_nine_sections(tmp_path: Path) -> None:
    put(tmp_path, *(preprocessed("EN057", run) for run in EN057), preprocessed("EN058", 8))
    put(tmp_path, *(preprocessed("CN003", run) for run in range(5, 14)))
    assert open_at(tmp_path).subjects() == ["EN057"]
    assert open_at(tmp_path, language="CN").subjects() == ["CN003"]
    assert open_at(tmp_path, ["EN058"]).subjects() == ["EN058"]


def test_subjects_may_be_named_with_or_without_sub(tmp_path: Path) -> None:
    put(tmp_path, *(preprocessed("EN057", run) for run in EN057))
    opened = open_at(tmp_path, ["sub-EN057"])
    assert opened.subjects() == ["EN057"]
    assert opened.runs("sub-EN057") == opened.runs("EN057")
    with pytest.raises(RecordingError, match="named twice"):
        open_at(tmp_path, ["sub-EN057", "EN057"]).subjects()


def test_a_subject_unknown_to_the_dataset_is_ranked_only_with_nine_runs(tmp_path: Path) -> None:
    put(tmp_path, *(preprocessed("EN200", run) for run in (2, 4, 5, 6, 7, 8, 9, 10, 30)))
    files = open_at(tmp_path).files("EN200")
    assert files["section2"].path.name.startswith("sub-EN200_task-lppEN_run-04")  # type: ignore[union-attr]
    (tmp_path / preprocessed("EN200", 5)).unlink()
    with pytest.raises(
        RecordingError, match=r"EN200' has the runs 2, 4, 6, 7, 8, 9, 10, 30 .*nine are needed"
    ):
        open_at(tmp_path, ["EN200"]).files("EN200")
    put(tmp_path, *(preprocessed("EN057", run) for run in EN057))
    assert open_at(tmp_path).subjects() == ["EN057"]


def test_a_run_that_a_listed_subject_did_not_have_is_refused(tmp_path: Path) -> None:
    put(tmp_path, *(preprocessed("EN057", run) for run in (*EN057, 24)))
    with pytest.raises(RecordingError, match="run 24 is not one of theirs"):
        open_at(tmp_path).files("EN057")


def test_two_files_for_one_run_are_refused(tmp_path: Path) -> None:
    name = preprocessed("EN057", 15)
    put(tmp_path, name, name.replace("run-15", "run-015"))
    with pytest.raises(RecordingError, match="Two files are run 15 of subject 'EN057'"):
        open_at(tmp_path).subjects()


def test_stray_files_are_no_runs(tmp_path: Path) -> None:
    put(tmp_path, *(preprocessed("EN057", run) for run in EN057))
    folder = (tmp_path / preprocessed("EN057", 15)).parent
    for name in (
        ".DS_Store",
        "._" + Path(preprocessed("EN057", 15)).name,
        "sub-EN058_task-lppEN_run-08_bold.nii.gz",
    ):
        (folder / name).touch()
    put(
        tmp_path,
        "derivatives/sub-EN057x/func/a",
        "derivatives/dataset_description.json",
        "derivatives/sub-EN099",
    )
    assert open_at(tmp_path).subjects() == ["EN057"]
    assert len(open_at(tmp_path).files("EN057")) == 9


def test_missing_subjects_are_named_with_the_command_to_fetch_them(tmp_path: Path) -> None:
    put(tmp_path, preprocessed("EN057", 15))
    with pytest.raises(
        RecordingError, match=r"'EN058' has no images in .*derivatives/sub-EN058. Run: datalad get"
    ):
        open_at(tmp_path, ["EN058"]).subjects()
    with pytest.raises(RecordingError, match=r"'EN060' was not found in .*Found: EN057"):
        open_at(tmp_path, ["EN060"]).subjects()
    with pytest.raises(RecordingError, match=r"No EN subject in .* has all nine sections"):
        open_at(tmp_path).subjects()
    with pytest.raises(RecordingError, match="No subject was found"):
        open_at(tmp_path, language="FR").subjects()
    with pytest.raises(RecordingError, match=r"'EN060' has no images of kind \"derivatives\""):
        open_at(tmp_path).files("EN060")


def test_raw_runs_are_those_of_the_sections_and_aborted_ones_are_left_out(tmp_path: Path) -> None:
    """EN059 has raw runs 15 and 16, CN032 run 3, that were broken off."""
    put(tmp_path, *(raw("EN059", run, echo) for run in (*range(7, 18),) for echo in (1, 2, 3)))
    put(tmp_path, *(raw("CN032", run, 2) for run in (3, *range(5, 14))))
    files = open_at(tmp_path, kind="raw").files("EN059")
    assert [f.path for f in files.values()] == [tmp_path / raw("EN059", r, 2) for r in (*range(7, 15), 17)]
    assert open_at(tmp_path, kind="raw", echo=3).files("EN059")["section9"].path == tmp_path / raw(
        "EN059", 17, 3
    )
    chinese = open_at(tmp_path, kind="raw", language="CN", stimulus_onset=8.0).files("CN032")
    assert chinese["section1"].path == tmp_path / raw("CN032", 5, 2)
    assert [f.scans for f in chinese.values()] == list(SCANS["CN", "raw"])


def test_sections_of_raw_runs_of_an_unknown_subject_are_those_of_the_derivatives(tmp_path: Path) -> None:
    ids = (2, 4, 5, 6, 7, 8, 9, 10, 30)
    put(
        tmp_path,
        *(preprocessed("EN200", run) for run in ids),
        *(raw("EN200", run, 2) for run in (1, 3, *ids)),
    )
    files = open_at(tmp_path, kind="raw").files("EN200")
    assert [f.path for f in files.values()] == [tmp_path / raw("EN200", run, 2) for run in ids]


def test_the_onset_of_the_sound_depends_on_the_kind_of_image(tmp_path: Path) -> None:
    put(tmp_path, raw("EN057", 15, 2), raw("FR001", 1, 2), raw("CN001", 4, 2))
    put(tmp_path, preprocessed("EN057", 15), preprocessed("FR001", 1), preprocessed("CN001", 4))

    def onset(subject: str, **options: Any) -> float:
        return open_at(tmp_path, language=subject[:2], **options).files(subject)["section1"].stimulus_onset

    assert [onset(s) for s in ("EN057", "CN001", "FR001")] == [0.0, 0.0, 0.0]
    assert [onset(s, kind="raw") for s in ("EN057", "FR001")] == [8.0, 0.0]
    with pytest.raises(
        SettingsError, match=r"README of the dataset says both .*Set recording\.stimulus_onset"
    ):
        onset("CN001", kind="raw")
    opened = open_at(tmp_path, language="CN", kind="raw", stimulus_onset=8.0)
    assert opened._stimulus_onset("section1", opened.files("CN001")["section1"]) == 8.0


def test_pictures_are_nuisance_events_of_section_1_only(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(
            preprocessed(s, r)
            for s, first in (("EN057", 15), ("CN001", 4), ("FR001", 1))
            for r in (first, first + 1)
        ),
    )
    files = {s: open_at(tmp_path, language=s[:2]).files(s) for s in ("EN057", "CN001", "FR001")}
    assert files["EN057"]["section1"].events == ((10.0, 15.0), (35.0, 20.0), (60.0, 15.0))
    assert files["CN001"]["section1"].events == ((10.0, 15.0), (30.0, 20.0), (55.0, 15.0))
    assert files["FR001"]["section1"].events == files["EN057"]["section2"].events == ()
    assert open_at(tmp_path, pictures=False).files("EN057")["section1"].events == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "DE"}, r"data.options.language is 'DE'; the corpus 'lpp' takes: EN, CN, FR"),
        ({"kind": "preproc"}, "derivatives, raw"),
        ({"words": "grid"}, "auto, table, textgrid, textgrid-raw"),
        ({"echo": 4}, "1, 2, 3"),
        ({"echo": True}, "1, 2, 3"),
        ({"pictures": "no"}, "true, false"),
        ({"pictures": 1}, "true, false"),
        ({"language": ["EN"]}, "EN, CN, FR"),
    ],
)
def test_options_with_other_values_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        open_at(tmp_path, **options)


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no folder .*Set data\.path"):
        open_at(tmp_path / "ds003643")


def test_lpp_is_a_corpus_with_the_documented_options(tmp_path: Path) -> None:
    opened = open_at(tmp_path)
    assert isinstance(opened, Corpus)
    assert "10.1038/s41597-022-01625-7" in opened.citation()
    assert opened.licence().startswith("The data are CC0")
    check_options("lpp", corpus, dict.fromkeys(("language", "kind", "words", "echo", "pictures")))
    with pytest.raises(LangcortexError, match="no option 'lang'"):
        check_options("lpp", corpus, {"lang": "EN"})


def test_french_words_are_from_the_textgrids_unless_the_table_is_named(tmp_path: Path) -> None:
    assert open_at(tmp_path, language="FR").annotation.words == "textgrid"
    assert open_at(tmp_path, language="FR", words="table").annotation.words == "table"
    assert open_at(tmp_path).annotation.words == open_at(tmp_path, language="CN").annotation.words == "table"


def test_recordings_have_the_published_scans_on_the_storys_clock(tmp_path: Path) -> None:
    for k in (0, 1):
        image(tmp_path / preprocessed("EN057", 15 + k), SCANS["EN", "derivatives"][k], k)
    opened = corpus(tmp_path, Reading(subjects=["EN057"], mask="all"))
    recording = opened.recording("EN057", "section2")
    assert recording.values.shape == (298, 27)
    assert (recording.onset[0], recording.tr, recording.reference, recording.end) == (0.0, 2.0, 0.5, 596.0)
    assert opened.inventory("EN057") == {"section1": (282, 2.0, 0.0), "section2": (298, 2.0, 0.0)}


def test_pictures_change_section_1_only(tmp_path: Path) -> None:
    for k in (0, 1):
        image(tmp_path / preprocessed("EN057", 15 + k), SCANS["EN", "derivatives"][k], k)
    with_, without = (corpus(tmp_path, Reading(["EN057"], mask="all"), pictures=p) for p in (True, False))
    for run, is_equal in (("section1", False), ("section2", True)):
        a, b = (c.recording("EN057", run).values for c in (with_, without))
        assert np.array_equal(a, b) is is_equal


def test_a_run_of_another_length_is_refused(tmp_path: Path) -> None:
    image(tmp_path / preprocessed("EN057", 15), 298, 0)
    opened = corpus(tmp_path, Reading(["EN057"], mask="all"))
    with pytest.raises(RecordingError, match="has 298 scans, but 282 were published"):
        opened.inventory("EN057")


def test_raw_images_have_one_grid_per_subject(tmp_path: Path) -> None:
    image(tmp_path / raw("EN057", 15, 2), 286, 0, size=3)
    image(tmp_path / raw("EN058", 8, 2), 286, 1, size=4)
    opened = corpus(tmp_path, Reading(["EN057", "sub-EN058"], mask="all"), kind="raw")
    assert [opened.space_of(s).n_targets for s in opened.subjects()] == [27, 64]
    assert opened.space_of("EN057") is opened.space_of("sub-EN057")
    assert opened.recording("EN058", "section1").onset[0] == -8.0


def test_an_image_that_is_not_downloaded_is_to_be_fetched(tmp_path: Path) -> None:
    put(tmp_path, *(preprocessed("EN057", run) for run in EN057))
    with pytest.raises(RecordingError, match=r"datalad get .*run-15"):
        open_at(tmp_path).recording("EN057", "section2")


def test_participants_are_read_past_the_byte_order_mark(tmp_path: Path) -> None:
    text = "participant_id\tage\tsex\tcorrect_quiz_questions\ttotal_quiz_questions\nsub-EN057\t20\tF\t31\t36\nsub-FR001\t21\tM\tn/a\tn/a"
    (tmp_path / "participants.tsv").write_text(text, encoding="utf-8-sig")
    people = open_at(tmp_path).participants()
    assert people.index.tolist() == ["EN057", "FR001"]
    assert people.loc["EN057", "correct_quiz_questions"] == 31
    assert np.isnan(people.loc["FR001", "correct_quiz_questions"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject\tage\nsub-EN057\t20\n", "no column 'participant_id'"),
        ("participant_id\tage\nsub-EN057\t20\nsub-EN057\t21\n", "two rows for 'EN057'"),
        ("participant_id\tage\nsub-EN057\t20\t3\t4\nsub-EN058\n\t\t\t\t\t\n", "cannot be read"),
        ("\n", "cannot be read"),
    ],
)
def test_a_damaged_table_of_participants_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "participants.tsv").write_text(text)
    with pytest.raises(RecordingError, match=message):
        open_at(tmp_path).participants()


def test_sounds_are_named_with_a_hyphen_in_english_only(tmp_path: Path) -> None:
    for name in ("task-lppEN_section-3.wav", "task-lppFR_section_3.wav"):
        (tmp_path / "stimuli").mkdir(exist_ok=True)
        (tmp_path / "stimuli" / name).write_bytes(b"RIFF")
    assert open_at(tmp_path).wav("section3").name == "task-lppEN_section-3.wav"
    assert open_at(tmp_path, language="FR").wav("section3").name == "task-lppFR_section_3.wav"
    with pytest.raises(StoryError, match="does not exist"):
        open_at(tmp_path).wav("section4")
    with pytest.raises(StoryError, match="no 'section10'"):
        open_at(tmp_path).wav("section10")


def test_the_listed_run_ids_are_nine_rising_numbers_of_112_subjects() -> None:
    people = {s: ids for language in RUN_IDS for s, ids in lpp._run_ids(language).items()}
    assert len(people) == 112
    assert sum(len(lpp._expand_ranges(n)) for by in RUN_IDS.values() for n in by.values()) == 112
    assert all(len(ids) == 9 and list(ids) == sorted(set(ids)) for ids in people.values())


# ------------------------------------------------------------------------------------------ the published tree


@pytest.fixture(scope="module")
def published(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create all files of version 2.0.7 as dangling links."""
    names = (shared_data / "lpp/ds003643_v2.0.7_files.txt").read_text(encoding="utf-8").split("\n")
    names = [name.split()[-1] for name in names if name.strip()]
    assert len(names) == 7313
    return put(tmp_path_factory.mktemp("ds003643"), *names)


@pytest.mark.parametrize(("language", "n_subjects"), [("EN", 49), ("CN", 35), ("FR", 28)])
def test_every_published_image_gets_its_section(
    published: Path, shared_data: Path, language: str, n_subjects: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((shared_data / "lpp/run_manifest.json").read_text())
    run_ids = {s.removeprefix("sub-"): ids for s, ids in manifest.items() if s[4:6] == language}
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(str(path)), scandir(path))[1])
    opened = open_at(published, language=language)
    assert opened.subjects() == list(run_ids)
    assert len(run_ids) == n_subjects
    for subject, ids in run_ids.items():
        paths = {run: f.path for run, f in opened.files(subject).items()}
        assert paths == {
            f"section{k}": published / preprocessed(subject, i) for k, i in enumerate(ids, start=1)
        }
        assert tuple(ids) == lpp._run_ids(language)[subject]
    assert len(listed) == len(set(listed)) == 1 + n_subjects


@pytest.mark.parametrize("language", ["EN", "CN", "FR"])
def test_every_published_raw_run_gets_its_section(published: Path, shared_data: Path, language: str) -> None:
    manifest = json.loads((shared_data / "lpp/run_manifest.json").read_text())
    opened = open_at(published, language=language, kind="raw", stimulus_onset=0.0)
    for subject in opened.subjects():
        ids = manifest[f"sub-{subject}"]
        assert [f.path for f in opened.files(subject).values()] == [
            published / raw(subject, i, 2) for i in ids
        ]
    assert len(opened.subjects()) == {"EN": 49, "CN": 35, "FR": 28}[language]


def test_the_published_participants_are_the_listed_subjects(shared_data: Path) -> None:
    people = corpus(shared_data / "lpp", Reading()).participants()
    assert set(people.index) == {s for language in RUN_IDS for s in lpp._run_ids(language)}
    assert people.loc["EN076", "total_quiz_questions"] == 32
    assert np.isnan(people.loc["EN098", "correct_quiz_questions"])


def test_the_runs_of_the_story_are_those_of_recordings(shared_data: Path) -> None:
    opened = corpus(shared_data / "lpp", Reading(sentences="pauses"))
    assert opened.story().runs == SECTIONS
    assert opened.story() is opened.story()
    assert len(opened.story().sentences) == 2103
    ends = [
        float((opened.story().onset + opened.story().duration)[opened.story().run == r][-1]) for r in SECTIONS
    ]
    assert all(end <= 2 * scans for end, scans in zip(ends, SCANS["EN", "derivatives"], strict=True))
