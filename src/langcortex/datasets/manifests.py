"""Manifests of published corpora: their files, sizes and licences.

Names and sizes are those of the git-annex links in the OpenNeuro repositories at the snapshots named here.
The derivatives of Narratives, which are elsewhere, were not seen: their names are from the authors' lists.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from langcortex.errors import SettingsError
from langcortex.paths import as_path


@dataclass(frozen=True)
class DownloadPlan:
    """The files to download of a corpus.

    Attributes
    ----------
    corpus : the name, as in data.corpus
    dataset : the accession number, e.g. "ds003643"
    tag : the snapshot; None for the newest
    url : where DataLad clones the dataset from
    folder : where files are downloaded to, made absolute
    include : paths within the dataset, perhaps with ``*`` for any text but a slash; each must match a file
    extras : the same, for files that may be missing
    files : the number of files; None where it is not known
    size : in bytes; None where it is not known
    estimate : where the size is from
    licence, citation : one sentence each
    tools : the programs that can download it, in order of preference
    """

    corpus: str
    dataset: str
    tag: str | None
    url: str
    folder: Path
    include: tuple[str, ...]
    files: int | None
    size: int | None
    estimate: str
    licence: str
    citation: str
    extras: tuple[str, ...] = ()
    tools: tuple[str, ...] = ("datalad", "openneuro")

    def __post_init__(self) -> None:
        # tools are run in other folders
        object.__setattr__(self, "folder", self.folder.expanduser().absolute())

    def lines(self) -> list[str]:
        """Describe the download in lines of text."""
        size = "of unknown size" if self.size is None else f"about {human_size(self.size)}"
        count = "files" if self.files is None else f"{self.files} files"
        return [
            f"{self.dataset}{f', snapshot {self.tag}' if self.tag else ''}: {count}, {size} ({self.estimate})",
            *(f"  {pattern}" for pattern in (*self.include, *self.extras)),
            f"into {self.folder}",
            f"Licence: {self.licence}",
            f"Cite: {self.citation}",
        ]


def human_size(size: int) -> str:
    """Format a number of bytes.

    >>> human_size(651_900_000), human_size(20_118_122_136)
    ('652 MB', '20.1 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def plan_download(
    corpus: str, subjects: Sequence[str], folder: Path | str, **options: object
) -> DownloadPlan:
    """List what to download of a published corpus for some subjects; nothing is downloaded.

    Parameters
    ----------
    corpus : "lpp", "lebel", "narratives" or "reading_brain"
    subjects : their names, with or without "sub-"
    folder : where to download to
    options : for lpp: ``kind`` ("derivatives" or "raw") and ``echo`` (1, 2, 3, or 0 for all three; of raw images).
        For lebel: ``stories`` (names; all by default). For narratives: ``task`` (one name or several),
        ``derivatives`` ("fmriprep", "afni-smooth" or "afni-nosmooth") and ``kind`` ("volume" or "surface")

    Raises
    ------
    SettingsError : there is no such corpus, subject or option
    """
    folder = as_path(folder)
    if corpus not in _PLANS:
        raise SettingsError(
            f"No corpus to fetch is called '{corpus}'. There are: {', '.join(_PLANS)}. "
            "Others must be fetched by hand; point data.path at them."
        )
    make_plan = _PLANS[corpus]
    available = list(inspect.signature(make_plan).parameters)[2:]
    unknown = next((name for name in options if name not in available), None)
    if unknown is not None:
        raise SettingsError(
            f"Fetching {corpus} has no option '{unknown}'. It takes: {', '.join(available) or 'none'}."
        )
    names = [str(name).removeprefix("sub-") for name in subjects]
    if not names:
        raise SettingsError(f"Name at least one subject of {corpus} to fetch, e.g. {_SUBJECTS[corpus][0]}.")
    for name in names:
        if name not in _SUBJECTS[corpus]:
            raise SettingsError(
                f"{corpus} has no subject '{name}'. Its {len(_SUBJECTS[corpus])} subjects are "
                f"{_SUBJECTS[corpus][0]} to {_SUBJECTS[corpus][-1]}, some numbers left out."
            )
        if names.count(name) > 1:
            raise SettingsError(f"Subject '{name}' is named twice.")
    return make_plan(names, Path(folder), **options)


def _numbered(prefix: str, first: int, last: int, digits: int, without: str = "") -> list[str]:
    absent = set(without.split())
    names = (f"{n:0{digits}d}" for n in range(first, last + 1))
    return [prefix + name for name in names if name not in absent]


_SUBJECTS = {
    "lpp": [
        *_numbered("EN", 57, 115, 3, "060 066 071 080 085 090 102 107 111 112"),
        *_numbered("CN", 1, 37, 3, "012 035"),
        *_numbered("FR", 1, 30, 3, "021 027"),
    ],
    "lebel": _numbered("UTS", 1, 9, 2),
    "narratives": _numbered("", 1, 345, 3),
    "reading_brain": _numbered("", 1, 52, 2),
}
_OPENNEURO = "https://github.com/OpenNeuroDatasets/{}.git"

# bytes, the mean over the subjects of a language: nine preprocessed runs; nine runs of echo 1, 2 and 3
_LPP_RUNS = {"EN": 651_900_000, "CN": 700_800_000, "FR": 744_000_000}
_LPP_ECHOES = {
    "EN": (477_900_000, 444_900_000, 416_800_000),
    "CN": (527_900_000, 485_100_000, 446_200_000),
    "FR": (484_500_000, 433_400_000, 396_200_000),
}
_LPP_WORDS = {"EN": 19_543_101, "CN": 19_710_495, "FR": 25_706_093}  # bytes of the annotation


def _plan_lpp(
    subjects: Sequence[str], folder: Path, kind: str = "derivatives", echo: int = 0
) -> DownloadPlan:
    """Plan Le Petit Prince: images and the annotation of their languages, without the tables of word embeddings."""
    if kind not in ("derivatives", "raw"):
        raise SettingsError(f"kind is derivatives or raw, not '{kind}'.")
    if echo not in (0, 1, 2, 3):
        raise SettingsError(f"echo is 1, 2 or 3, or 0 for all three; not {echo}.")
    languages = list(dict.fromkeys(name[:2] for name in subjects))
    include = ["README", "participants.tsv"]
    for language in languages:
        tables = ["section*.TextGrid", "word_information.csv", "tree.csv", "dependency.csv", "prosody.csv"]
        tables += [] if language == "FR" else ["coreference.csv"]  # there is none in French
        include += [f"annotation/{language}/lpp{language}_{table}" for table in tables]
    files = 2 + sum(13 if language == "FR" else 14 for language in languages)
    size = 12_000 + sum(_LPP_WORDS[language] for language in languages)
    if kind == "derivatives":
        include += [f"derivatives/sub-{s}/func/sub-{s}_task-lpp{s[:2]}_run-*_bold.nii.gz" for s in subjects]
        files += 9 * len(subjects)
        size += sum(_LPP_RUNS[s[:2]] for s in subjects)
    else:
        echoes = (echo,) if echo else (1, 2, 3)
        for s in subjects:
            stem = f"sub-{s}/func/sub-{s}_task-lpp{s[:2]}_run-*_echo-"
            include += [f"{stem}{e}_bold.{end}" for e in echoes for end in ("nii.gz", "json")]
            # aborted runs: CN032 has one, EN059 two
            files += 2 * len(echoes) * (9 + {"CN032": 1, "EN059": 2}.get(s, 0))
            size += sum(_LPP_ECHOES[s[:2]][e - 1] for e in echoes)
    return DownloadPlan(
        corpus="lpp",
        dataset="ds003643",
        tag="2.0.7",
        url=_OPENNEURO.format("ds003643"),
        folder=folder,
        include=tuple(include),
        files=files,
        size=size,
        estimate="images: the mean over the subjects of a language, who differ by a tenth; words: exact",
        licence="CC0; the book itself may be under copyright where you are.",
        citation=(
            "Li, J., Bhattasali, S., Zhang, S., Franzluebbers, B., Luh, W., Spreng, R. N., Brennan, J. R., Yang, Y., "
            "Pallier, C., & Hale, J. (2022). Le Petit Prince multilingual naturalistic fMRI corpus. Scientific Data, 9, "
            "530. doi:10.1038/s41597-022-01625-7; doi:10.18112/openneuro.ds003643.v2.0.7"
        ),
    )


# subject → stories, their bytes together, and the bytes of the test story with its repeats
_LEBEL = {
    "UTS01": (84, 20_118_122_136, 2_077_476_776),
    "UTS02": (84, 23_372_912_136, 2_413_581_776),
    "UTS03": (84, 23_696_531_256, 2_447_000_216),
    "UTS04": (26, 9_438_032_672, 1_529_065_160),
    "UTS05": (27, 8_904_868_648, 1_387_331_864),
    "UTS06": (27, 8_266_159_304, 1_287_823_832),
    "UTS07": (27, 8_463_133_536, 1_318_511_528),
    "UTS08": (27, 8_698_749_504, 1_355_219_432),
    "UTS09": (54, 15_853_447_168, 1_373_559_296),
}
_LEBEL_TEXTGRIDS = (84, 84_526_092)
_LEBEL_TEST = "wheretheressmoke"


def _plan_lebel(subjects: Sequence[str], folder: Path, stories: Sequence[str] | None = None) -> DownloadPlan:
    """Plan LeBel et al. 2023: preprocessed responses, TextGrids and the lengths of the stories."""
    names = [stories] if isinstance(stories, str) else list(stories or ["*"])
    include, count = ["derivative/respdict.json"], len(names) if stories else _LEBEL_TEXTGRIDS[0]
    include += [f"derivative/TextGrids/{story}.TextGrid" for story in names]
    include += [f"derivative/preprocessed_data/{s}/{story}.hf5" for s in subjects for story in names]
    size = 2_005 + _LEBEL_TEXTGRIDS[1] * count // _LEBEL_TEXTGRIDS[0]
    files = 1 + count
    for s in subjects:
        n_stories, total, test = _LEBEL[s]
        n_training = len(names) - (_LEBEL_TEST in names)
        mean_size = (total - test) // (n_stories - 1)
        size += mean_size * n_training + test * (_LEBEL_TEST in names) if stories else total
        files += len(names) if stories else n_stories
    return DownloadPlan(
        corpus="lebel",
        dataset="ds003020",
        tag="3.1.0",
        url=_OPENNEURO.format("ds003020"),
        folder=folder,
        include=tuple(include),
        files=files,
        size=size,
        estimate=(
            "stories: the mean over those of a subject; the test story, with all its repeats: exact"
            if stories
            else "exact"
        ),
        licence="CC0.",
        citation=(
            "LeBel, A., Wagner, L., Jain, S., Adhikari-Desai, A., Gupta, B., Morgenthal, A., Tang, J., Xu, L., & Huth, "
            "A. G. (2023). A natural language fMRI dataset for voxelwise encoding models. Scientific Data, 10, 555. "
            "doi:10.1038/s41597-023-02437-z; doi:10.18112/openneuro.ds003020.v3.1.0"
        ),
    )


_CLEAN = ("afni-smooth", "afni-nosmooth")


def _plan_narratives(
    subjects: Sequence[str],
    folder: Path,
    task: str | Sequence[str] = "",
    derivatives: str = "fmriprep",
    kind: str = "volume",
) -> DownloadPlan:
    """Plan Narratives: images of some tasks, their events, and the words that Gentle aligned."""
    tasks = [task] if isinstance(task, str) else list(task)
    if not all(tasks):
        raise SettingsError('Fetching narratives needs a task, e.g. task = "pieman".')
    if derivatives not in ("fmriprep", *_CLEAN):
        raise SettingsError(f"derivatives is fmriprep, {' or '.join(_CLEAN)}; not '{derivatives}'.")
    if kind not in ("volume", "surface"):
        raise SettingsError(f"kind is volume or surface, not '{kind}'.")
    desc = "preproc" if derivatives == "fmriprep" else "clean"
    end = "hemi-*.func.gii" if kind == "surface" else f"desc-{desc}_bold.nii.gz"
    if kind == "surface" and derivatives in _CLEAN:
        end = "hemi-*_desc-clean.func.gii"
    include, extras = [], ["participants.tsv", "code/scan_exclude.json"]
    for t in tasks:
        extras += [f"stimuli/gentle/{t}*/align.*", f"stimuli/gentle/{t}*/transcript.txt"]
        for s in subjects:
            stem = f"derivatives/{derivatives}/sub-{s}/func/sub-{s}_task-{t}_*"
            include.append(stem + end)
            extras += [
                f"sub-{s}/func/sub-{s}_task-{t}_*events.tsv",
                f"sub-{s}/func/sub-{s}_task-{t}_*bold.json",
            ]
            if derivatives == "fmriprep":
                extras += [
                    f"{stem}desc-confounds_regressors.tsv",
                    f"{stem}desc-brain_mask.nii.gz",
                    f"{stem}bold.json",
                ]
    return DownloadPlan(
        corpus="narratives",
        dataset="///labs/hasson/narratives",
        tag=None,
        url="///labs/hasson/narratives",
        folder=folder,
        include=tuple(include),
        extras=tuple(extras),
        files=None,
        size=None,
        estimate=(
            "on OpenNeuro, ds002345 has only raw images and sound, so the preprocessed ones come from DataLad, where "
            "sizes are not known in advance; 300 scans of a surface are about 0.1 GB before compression"
        ),
        licence="CC0, says ds002345.",
        citation=(
            "Nastase, S. A., Liu, Y.-F., Hillman, H., et al. (2021). The “Narratives” fMRI dataset for evaluating models "
            "of naturalistic language comprehension. Scientific Data, 8, 250. doi:10.1038/s41597-021-01033-3"
        ),
        tools=("datalad",),
    )


def _plan_reading_brain(subjects: Sequence[str], folder: Path) -> DownloadPlan:
    """Plan the Reading Brain, L1 readers: raw images, the files that preprocessing needs, and fixations."""
    include = [
        "task-read_bold.json",
        "T1w.json",
        "dir-AP_epi.json",
        "dir-PA_epi.json",
        "dataset_description.json",
    ]
    include += ["L1_Adults_demographics.tsv", "text_data.xlsx"]
    for s in subjects:
        include += [
            f"sub-{s}/func/sub-{s}_task-read_run-*_bold.nii.gz",
            f"sub-{s}/func/sub-{s}_task-read_run-*_events.tsv",
            f"sub-{s}/anat/sub-{s}_T1w.nii.gz",
            f"sub-{s}/fmap/sub-{s}_acq-multiband_dir-*_epi.nii.gz",
        ]
    return DownloadPlan(
        corpus="reading_brain",
        dataset="ds003974",
        tag="3.0.0",
        url=_OPENNEURO.format("ds003974"),
        folder=folder,
        include=tuple(include),
        files=7 + 13 * len(subjects),
        size=200_000 + 753_700_000 * len(subjects),
        estimate="the mean over 52 subjects, 0.58 to 0.95 GB each; raw images, to be preprocessed by you",
        licence="CC0.",
        citation=(
            "Li, P., Hsu, C.-T., Schloss, B., Yu, A., Ma, L., Scotto, M., Seyfried, F., & Gu, C. (2022). The Reading Brain "
            "Project L1 Adults. OpenNeuro. doi:10.18112/openneuro.ds003974.v3.0.0"
        ),
    )


_PLANS: dict[str, Callable[..., DownloadPlan]] = {
    "lpp": _plan_lpp,
    "lebel": _plan_lebel,
    "narratives": _plan_narratives,
    "reading_brain": _plan_reading_brain,
}
