"""The examples: their studies read, their corpora and make.py keep what they promise, on stand-ins and on the real data."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest

from langcortex.brain.space import Space
from langcortex.brain.timing import hrf_weights
from langcortex.datasets import Corpus
from langcortex.errors import LangcortexError, RecordingError
from langcortex.features import control
from langcortex.features.table import Features
from langcortex.results.results import Results
from langcortex.simulation.planted import AUDITORY_REGIONS, LANGUAGE_REGIONS, Plant
from langcortex.stimulus.story import Story, read_story
from langcortex.study.corpus import open_corpus
from langcortex.study.run import run_study
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study, read_study
from langcortex.study.subject import read_subject

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STUDIES = sorted(EXAMPLES.glob("*/*.toml"))


def load(name: str, module: str) -> ModuleType:
    """Import a module of an example by its path."""
    spec = importlib.util.spec_from_file_location(f"example_{module}", EXAMPLES / name / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def example(study: str, data: Path, output: Path, *overrides: str, **tables: dict[str, Any]) -> Study:
    """Read a study of an example, with data and output elsewhere, and settings changed table by table."""
    study_with_data = read_study(
        EXAMPLES / study, [f"data.path={data}", f"output={output}", *overrides], True
    )
    values = study_with_data.model_dump(exclude_unset=True)
    for name, settings in tables.items():
        values[name] = settings if name == "models" else {**values.get(name, {}), **settings}
    return make_study(values, study, (EXAMPLES / study).parent, allow_code=True)


def pooled(results: Results, model: str, region: str, layer: int | None = None, subject: str = "") -> float:
    """Give one mean r of held-out rows."""
    s = results.scores
    s = s[(s.model == model) & (s.region == region) & (s.metric == "r") & (s.run == "all")]
    s = s[s.layer.isna() if layer is None else s.layer == layer]
    if subject:
        s = s[s.subject == subject]
    return float(s.value.mean())


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_study_reads(path: Path) -> None:
    study = read_study(path)
    study.to_protocol()
    assert not Path(study.data.path).is_absolute()


def test_no_file_of_an_example_names_a_folder_of_one_machine() -> None:
    files = [p for p in EXAMPLES.rglob("*") if p.suffix in (".py", ".toml", ".md")]
    assert len(files) >= 7
    with_paths = [
        p.name for p in files if re.search(r"(^|[\s\"'=`(])/(work|home|Users|root|tmp)/", p.read_text())
    ]
    assert with_paths == []


# --- stories_uts02: a corpus of one's own


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Write five stories in the layout of the real file; components 0 to 9 follow the words of two scans ago."""
    rng = np.random.default_rng(1)
    saved = {}
    for story, part in (
        ("ash", "train"),
        ("birch", "train"),
        ("cedar", "train"),
        ("elm", "train"),
        ("fir", "test"),
    ):
        count = rng.poisson(4, 120)
        count[7] = 0
        rate = np.concatenate([[0.0, 0.0], (count - count.mean())[:-2]])
        values = rng.standard_normal((120, 50))
        values[:, :10] += rate[:, None]
        saved[f"{part}/{story}/text"] = np.array([" ".join(f"word{k}" for k in range(n)) for n in count])
        saved[f"{part}/{story}/pcs"] = (values / values.std(axis=0)).astype(np.float16)
    np.savez(tmp_path / "huth_uts02_small.npz", **saved)
    return tmp_path


def test_every_word_is_heard_in_the_scan_that_the_file_names(npz: Path) -> None:
    corpus = load("stories_uts02", "uts02").corpus(npz)
    assert isinstance(corpus, Corpus)
    story = corpus.story()
    assert story.runs == ("ash", "birch", "cedar", "elm", "fir")
    with np.load(npz / "huth_uts02_small.npz") as saved:
        lines = [str(line).split() for line in saved["train/ash/text"]]
    here = story.run == "ash"
    scan = np.floor((story.onset + story.duration / 2)[here] / 2.0).astype(int)
    assert np.bincount(scan, minlength=120).tolist() == [len(line) for line in lines]
    assert story.text[here].tolist() == [word for line in lines for word in line]
    # the words of a scan fill it evenly
    first = scan == 0
    np.testing.assert_allclose(story.onset[here][first], np.arange(first.sum()) * 2.0 / first.sum())
    assert (story.onset + story.duration)[here][first][-1] == pytest.approx(2.0)


def test_recordings_are_handed_on_as_they_are(npz: Path) -> None:
    corpus = load("stories_uts02", "uts02").corpus(npz, stories=["birch", "fir"])
    recordings = read_subject(corpus, *corpus.subjects())
    assert [r.run for r in recordings] == ["birch", "fir"]
    with np.load(npz / "huth_uts02_small.npz") as saved:
        np.testing.assert_array_equal(recordings[1].values, saved["test/fir/pcs"].astype(np.float32))
    space = recordings[0].space
    assert (space.names[0], space.names[-1]) == ("pc-00", "pc-49")
    assert space.names[space.regions["first10"]].tolist() == [f"pc-{i:02d}" for i in range(10)]
    assert space.regions["all50"].all()


def test_a_file_that_does_not_fit_is_named(npz: Path, tmp_path: Path) -> None:
    corpus = load("stories_uts02", "uts02").corpus
    with pytest.raises(RecordingError, match=r"has no story 'oak'.*ash, birch"):
        corpus(npz, stories=["oak"]).story()
    with pytest.raises(RecordingError, match=r"no .*other\.npz"):
        corpus(npz, file="other.npz").story()
    np.savez(
        tmp_path / "short.npz",
        **{"train/ash/text": np.array(["a b", "c"]), "train/ash/pcs": np.zeros((3, 50))},
    )
    with pytest.raises(RecordingError, match="'ash' has words for 2 scans, but 3 scans"):
        corpus(npz, file="short.npz").story()


def test_the_study_finds_the_words_in_the_stand_in(npz: Path, tmp_path: Path) -> None:
    """The whole study, but for the model, through the corpus it names."""
    study = example(
        "stories_uts02/study.toml",
        npz,
        tmp_path / "out",
        models=[],
        protocol={"test_runs": ["fir"], "inner": 2},
    )
    results = run_study(study)
    assert pooled(results, "word_count", "first10") > 0.6
    assert set(results.scores.run) == {"all", "fir"}
    others_r = results.maps["word_count"][0][10:]
    assert abs(others_r.mean()) < 0.05


@pytest.fixture(scope="session")
def stories(shared_data: Path) -> Path:
    return _present(shared_data / "stories_uts02")


def _present(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"the real data are absent: no folder {folder}")
    return folder


def test_the_real_stories_are_read_whole(stories: Path) -> None:
    corpus = load("stories_uts02", "uts02").corpus(stories)
    story, recordings = corpus.story(), read_subject(corpus, "UTS02")
    assert len(recordings) == 23
    assert len(story) == 44_613 - 12  # {cg} and the like are marks of the transcribers, no words
    assert sum(len(r.values) for r in recordings) == 7_924
    for r in recordings:
        assert np.abs(r.values.mean(axis=0)).max() < 0.01
        np.testing.assert_allclose(r.values.std(axis=0), 1.0, atol=0.01)
        assert (story.onset + story.duration)[story.run == r.run].max() <= r.end + 1e-9


def test_word_count_scores_what_is_known_in_the_real_stories(stories: Path, tmp_path: Path) -> None:
    """Known: .042 over the first ten components, .049 over all."""
    results = run_study(example("stories_uts02/study.toml", stories, tmp_path, models=[]))
    assert pooled(results, "word_count", "first10") == pytest.approx(0.042, abs=0.005)
    assert pooled(results, "word_count", "all50") == pytest.approx(0.049, abs=0.005)


# --- alice: tables of regions, a late scanner, one run


TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = {end}
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = {end}
        intervals: size = {n}
"""


def write_textgrid(path: Path, intervals: list[tuple[float, float, str]], cut: bool = False) -> None:
    """Write a word tier; with `cut` it breaks off inside its last interval."""
    text = TEXTGRID.format(end=intervals[-1][1], n=len(intervals))
    for i, (begin, end, label) in enumerate(intervals):
        text += f'        intervals [{i + 1}]:\n            xmin = {begin}\n            xmax = {end}\n            text = "{label}"\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[:-20] if cut else text)


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    """Write three people whose responses follow the words, in the layout of the real files."""
    rng = np.random.default_rng(2)
    onset = 20.0 + np.cumsum(rng.gamma(0.4, 0.9, 1500))
    intervals = [(0.0, float(onset[0]), "sp")]
    for begin, end in itertools.pairwise(onset):
        intervals.append((float(begin), float(end), "word"))
    grid = tmp_path / "alice_stim_shared" / "DownTheRabbitHoleFinal_exp120_pad_1.TextGrid"
    write_textgrid(grid, intervals, cut=True)
    early = onset[:-2]
    scans = 20.0 + 2.0 * np.arange(260)
    rate = hrf_weights(early, np.zeros(len(early)), scans, "spm", "impulse") @ np.ones(len(early))
    rate = (rate - rate.mean()) / rate.std()
    for subject in ("18", "22", "23"):
        table = 100.0 + rate[:, None] + rng.standard_normal((260, 6))
        path = tmp_path / "alice_data_shared" / "6mm" / f"s{subject}-timecourses.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(path, table)
    return tmp_path


ALICE = ('recording.subjects=["18","22","23"]', "design.short=trim")


def test_the_late_scanner_is_put_on_the_storys_clock(alice: Path, tmp_path: Path) -> None:
    results = run_study(example("alice/study.toml", alice, tmp_path / "out", *ALICE))
    rois = ["LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG"]
    right = [pooled(results, "word_count", roi, subject="average") for roi in rois]
    assert min(right) > 0.6
    wrong = run_study(
        example("alice/study.toml", alice, tmp_path / "wrong", *ALICE, recording={"stimulus_onset": 0.0})
    )
    assert max(pooled(wrong, "word_count", roi, subject="average") for roi in rois) < 0.3


def test_a_textgrid_that_breaks_off_is_an_error_unless_accepted(alice: Path, tmp_path: Path) -> None:
    study = example("alice/study.toml", alice, tmp_path / "out", *ALICE, story={"accept_truncated": False})
    with pytest.raises(LangcortexError, match=r"breaks off.*accept_truncated = true"):
        open_corpus(study).story()


@pytest.fixture(scope="session")
def real_alice(shared_data: Path) -> Path:
    return _present(shared_data / "alice")


def test_the_convolved_word_rate_is_the_published_predictor(real_alice: Path) -> None:
    """Row j is second 2 (j + 10) of the TextGrid: no shift fits better."""
    study = read_study(EXAMPLES / "alice" / "study.toml", [f"data.path={real_alice}"])
    corpus = open_corpus(study)
    story, recording = corpus.story(), corpus.recording("18", corpus.runs("18")[0])
    published = np.loadtxt(real_alice / "alice_data_shared" / "s18-rate.txt")
    assert recording.time[0] == 20.0
    words = control("word_count", story)

    def r(shift: float, kernel: str = "spm", moment: float = 0.0) -> float:
        onset = words.onset + moment * words.duration
        weights = hrf_weights(onset, words.duration, recording.time + shift, kernel, "impulse")
        return float(np.corrcoef(weights @ words.values[:, 0], published)[0, 1])

    assert r(0.0) > 0.95
    assert r(0.0) > max(r(-2.0), r(2.0)) + 0.05
    # the published rate puts an impulse at the end of each word
    assert r(0.0, moment=1.0) == pytest.approx(0.957, abs=0.001)


def test_word_rate_predicts_every_region_of_the_real_average(real_alice: Path, tmp_path: Path) -> None:
    """Known: r of .40 to .53 in blocked six-fold cross-validation."""
    results = run_study(example("alice/study.toml", real_alice, tmp_path))
    rois = ["LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG"]
    r = np.array([pooled(results, "word_count", roi, subject="average") for roi in rois])
    assert r.min() > 0.35
    assert r.max() < 0.60
    people = results.scores[results.scores.subject != "average"]
    assert people.subject.nunique() == 27
    assert people[(people.run == "all") & (people.metric == "r")].value.mean() == pytest.approx(
        0.155, abs=0.03
    )


# --- lpp_planted: the names of a real subject on a brain that was made


@pytest.fixture(scope="module")
def make() -> ModuleType:
    return load("lpp_planted", "make")


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Write nine short TextGrids with pauses between stretches of two to six words."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "annotations"
    for i in range(1, 10):
        intervals, now = [], 0.0
        for _ in range(24):
            for _ in range(int(rng.integers(2, 7))):
                intervals.append((now, round(now + 0.4, 3), "word"))
                now = round(now + 0.4, 3)
            intervals.append((now, round(now + 0.6, 3), "#"))
            now = round(now + 0.6, 3)
        write_textgrid(folder / f"lppEN_section{i}.TextGrid", intervals)
    return folder


def little_space() -> Space:
    """Make 6 × 6 × 6 voxels, two for each region."""
    names = [*LANGUAGE_REGIONS, *AUDITORY_REGIONS]
    regions = {name: np.isin(np.arange(216), [30 * i, 30 * i + 1]) for i, name in enumerate(names)}
    mask = np.ones((6, 6, 6), dtype=bool)
    return Space(
        "volume", np.arange(216).astype(str), mask=mask, affine=np.diag([8.0, 8, 8, 1]), regions=regions
    )


def some_layer(story: Story) -> Features:
    s = story.sentences
    values = np.random.default_rng(4).standard_normal((len(s), 5))
    return Features("some/layer-15", s.ids, s.onset, s.duration, s.run, values)


@pytest.mark.parametrize("noise", [False, True], ids=["planted", "noise"])
def test_made_files_have_the_real_names_and_carry_what_was_planted(
    make: ModuleType, annotations: Path, tmp_path: Path, noise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "PLANT", Plant(signal=0.8, delay=6.0, tr=2.0))
    out = tmp_path / "out"
    story = make.copy_story(annotations, out)
    scans = {run: 50 + i for i, run in enumerate(make.RUNS)}
    make.write_brain(story, None if noise else some_layer(story), little_space(), out, scans)
    # four targets of 216 are too few to choose the delay by
    design = {"rows": "sentences", "delays": [6.0]}
    study = example("lpp_planted/study.toml", out, tmp_path / "results", models=[], design=design)
    corpus = open_corpus(study)
    files = corpus.files("EN057")
    first = files["section1"]
    assert first.path.relative_to(out).as_posix() == (
        "derivatives/sub-EN057/func/sub-EN057_task-lppEN_run-15_space-MNIColin27_desc-preproc_bold.nii.gz"
    )
    assert {run: n for run, (n, _, _) in corpus.inventory("EN057").items()} == scans
    assert nibabel.load(first.path).header.get_zooms()[3] == 2.0
    results = run_study(study)
    auditory = [pooled(results, "duration", name) for name in AUDITORY_REGIONS]
    if noise:
        assert np.abs(auditory).max() < 0.2
    else:
        assert min(auditory) > 0.2
        assert set(results.delays["EN057"]) == {6.0}


def test_the_scan_counts_are_those_of_the_real_runs(make: ModuleType) -> None:
    assert list(make.RUNS.items())[::8] == [("section1", "15"), ("section9", "23")]
    assert list(make.SCANS.values()) == [282, 298, 340, 303, 265, 343, 325, 292, 368]


# --- with the language model and the real words: minutes


@pytest.mark.slow
def test_middle_layers_predict_the_real_stories_best(stories: Path, tmp_path: Path) -> None:
    """Known, from all 20 training stories: layer 0 .148, layer 15 .275 over the first ten components."""
    results = run_study(
        example("stories_uts02/study.toml", stories, tmp_path, "features.layers=[0,15]", "protocol.n_nulls=0")
    )
    deep, shallow = (pooled(results, "smollm2", "first10", layer) for layer in (15, 0))
    assert deep > 0.25
    assert shallow < 0.18
    assert pooled(results, "smollm2", "all50", 15) == pytest.approx(0.184, abs=0.03)
    assert pooled(results, "smollm2", "all50", 0) == pytest.approx(0.080, abs=0.03)


@pytest.mark.slow
def test_a_sound_protocol_finds_the_truth_and_the_replication_finds_noise(
    make: ModuleType, shared_data: Path, tmp_path: Path
) -> None:
    """Three of the nine sections: planted brain and pure noise, both protocols."""
    annotations = _present(shared_data / "lpp" / "annotation" / "EN")
    three = {run: label for run, label in make.RUNS.items() if run <= "section3"}
    keep = pytest.MonkeyPatch()
    keep.setattr(make, "RUNS", three)
    try:
        for name in ("planted", "noise"):
            story = make.copy_story(annotations, tmp_path / name)
            layer = make.planted_layer(story) if name == "planted" else None
            make.write_brain(story, layer, make.mni_space(8), tmp_path / name)
    finally:
        keep.undo()
    only = {"runs": three}
    few = {"n_nulls": 0, "inner": "runs"}

    def run(study: str, data: str, **tables: dict[str, Any]) -> Results:
        return run_study(
            example(
                f"lpp_planted/{study}.toml",
                tmp_path / data,
                tmp_path / f"{study}-{data}",
                recording=only,
                **tables,
            )
        )

    planted = run("study", "planted", protocol=few)
    for region in LANGUAGE_REGIONS:
        curve = {k: pooled(planted, "base", region, k) for k in (0, 15, 30)}
        assert curve[15] > 0.1
        assert curve[15] > max(curve[0], curve[30])
    noise = run("study", "noise", protocol=few)
    assert all(abs(pooled(noise, m, "brain", k)) < 0.02 for m in ("base", "instruct") for k in (0, 15, 30))
    leaking = run("replication", "noise")
    top = "top 300 voxels"
    assert all(pooled(leaking, m, top, 15) > 0.1 for m in ("base", "instruct"))
    shutil.rmtree(tmp_path / "noise")


def test_read_story_reads_what_make_copied(make: ModuleType, annotations: Path, tmp_path: Path) -> None:
    story = make.copy_story(annotations, tmp_path / "out")
    again = read_story(
        {run: tmp_path / "out" / "annotation" / "EN" / f"lppEN_{run}.TextGrid" for run in make.RUNS},
        "lpp",
        "pauses",
    )
    assert again.ids.tolist() == story.ids.tolist()
    assert len(story.sentences) == 9 * 24
