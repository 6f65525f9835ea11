"""Readers and valid files for them, and the ways in which files go wrong."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPECIAL = (
    b"", b"\x00", b"\xff\xfe", b"nan", b"inf", b"-inf", b"1e400", b"-1", b"9" * 40, b'"', b'""', b"\t", b"\n\n", b",,,",
    b"\r", b"\xef\xbb\xbf", b"{}", b"[", b"null", b"true", "\u202e\u0000\u4e2d".encode(), b"%s%n", b"../../x",
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A kind of file: how a valid one is made, and what reads it.

    Attributes
    ----------
    ending : of the file's name
    make : random generator → the bytes of a valid file
    read : path → anything
    """

    ending: str
    make: Callable[[np.random.Generator], bytes]
    read: Callable[[Path], object]


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file: bytes changed, cut, doubled, swapped or overwritten with what readers stumble over."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        a = int(rng.integers(0, len(data) + 1))
        b = min(len(data), a + int(rng.integers(0, 60)))
        kind = int(rng.integers(0, 7))
        if kind == 0 and len(data):
            data[min(a, len(data) - 1)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del data[a:b]
        elif kind == 2:
            data[a:a] = data[a:b] * int(rng.integers(1, 4))
        elif kind == 3:
            data[a:b] = SPECIAL[int(rng.integers(0, len(SPECIAL)))]
        elif kind == 4 and rng.random() < 0.3:
            del data[a:]
        elif kind == 5:
            data[a:b] = rng.bytes(b - a)
        elif kind == 6 and len(data) >= 8:
            at = int(rng.integers(0, min(len(data) - 7, 400)))
            number = int(rng.choice([0, 1, -1, 2**31 - 1, -(2**31), 32767, -32768, 65535]))
            data[at : at + 4] = struct.pack("<i", number if abs(number) < 2**31 else -(2**31))
    return bytes(data)


def _words(rng: np.random.Generator) -> list[tuple[str, float, float]]:
    text = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        ".",
        "Nobody",
        "knew",
        "why",
        "!",
        "It",
        "was",
        "#",
        "late",
    ]
    onset = np.cumsum(0.2 + 0.3 * rng.random(len(text)))
    return [(word, float(t), 0.15) for word, t in zip(text, onset, strict=True)]


def _table(separator: str) -> Callable[[np.random.Generator], bytes]:
    def make(rng: np.random.Generator) -> bytes:
        rows = [separator.join(("word", "onset", "duration", "sentence"))]
        rows += [
            separator.join((w, f"{t:.3f}", f"{d:.3f}", str(i // 4)))
            for i, (w, t, d) in enumerate(_words(rng))
        ]
        return "\n".join(rows).encode()

    return make


def _textgrid(form: str) -> Callable[[np.random.Generator], bytes]:
    def make(rng: np.random.Generator) -> bytes:
        words = _words(rng)
        end = words[-1][1] + 1
        if form == "chronological":
            end = round(words[-1][1] + words[-1][2], 3)
            rows = "".join(f'1 {t:.3f} {t + d:.3f}\n"{w}"\n' for w, t, d in words)
            return f'"Praat chronological TextGrid text file"\n0 {end}\n1\n"IntervalTier" "words" 0 {end}\n{rows}'.encode()
        if form == "binary":
            head = b"ooBinaryFile\x08TextGrid" + struct.pack(">ddBi", 0.0, end, 1, 1)
            tier = b"\x0cIntervalTier" + struct.pack(">H5sddi", 5, b"words", 0.0, end, len(words))
            rows_ = b"".join(struct.pack(">ddH", t, t + d, len(w)) + w.encode() for w, t, d in words)
            return head + tier + rows_
        rows = "".join(
            f'intervals [{i + 1}]:\nxmin = {t:.3f}\nxmax = {t + d:.3f}\ntext = "{w}"\n'
            for i, (w, t, d) in enumerate(words)
        )
        return (
            f'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = {end}\ntiers? <exists>\nsize = 1\nitem []:\n'
            f'item [1]:\nclass = "IntervalTier"\nname = "words"\nxmin = 0\nxmax = {end}\nintervals: size = {len(words)}\n{rows}'
        ).encode()

    return make


def _confounds(rng: np.random.Generator) -> bytes:
    values = rng.standard_normal((20, 4))
    rows = ["trans_x\ttrans_y\tcsf\tderivative1"]
    rows += [
        "\t".join(["n/a" if i == 0 and j == 3 else f"{v:.5f}" for j, v in enumerate(row)])
        for i, row in enumerate(values)
    ]
    return "\n".join(rows).encode()


def _npy(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    np.save(stream, rng.standard_normal((20, 6)).astype(np.float32))
    return stream.getvalue()


def _matrix(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    np.save(stream, rng.standard_normal((3, 5)).astype(np.float32))
    return stream.getvalue()


def _nifti(rng: np.random.Generator) -> bytes:
    import nibabel

    image = nibabel.Nifti1Image(
        rng.standard_normal((4, 4, 4, 12)).astype(np.float32), np.diag([2.0, 2, 2, 1])
    )
    image.header.set_zooms((2, 2, 2, 2))
    image.header.set_xyzt_units("mm", "sec")
    return image.to_bytes()


def _nifti_gz(rng: np.random.Generator) -> bytes:
    return gzip.compress(_nifti(rng), mtime=0)


def _gifti(rng: np.random.Generator) -> bytes:
    import nibabel

    arrays = [nibabel.gifti.GiftiDataArray(rng.standard_normal(10).astype(np.float32)) for _ in range(8)]
    return nibabel.gifti.GiftiImage(darrays=arrays).to_bytes()


def _hdf5(rng: np.random.Generator) -> bytes:
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["data"] = rng.standard_normal((12, 5))
    return stream.getvalue()


def _sidecar(rng: np.random.Generator) -> bytes:
    return json.dumps({"RepetitionTime": 2.0, "StartTime": 0.5, "SkullStripped": False}).encode()


def _events(rng: np.random.Generator) -> bytes:
    rows = ["onset\tduration\ttrial_type\tstim_file"] + [f"{2 * i}\t1.5\tword{i}\tn/a" for i in range(12)]
    return "\n".join(rows).encode()


def _vectors(rng: np.random.Generator) -> bytes:
    return "\n".join(
        f"{w} " + " ".join(f"{v:.4f}" for v in rng.standard_normal(4)) for w in ("cat", "mat", "the")
    ).encode()


def _labels(rng: np.random.Generator) -> bytes:
    return b"index\tname\n1\tleft frontal\n2\tright frontal\n3\ttemporal\n"


def _read_story(path: Path) -> object:
    from langcortex.stimulus.story import read_story

    return read_story({"run-1": path})


def _read_confounds(path: Path) -> object:
    from langcortex.brain.formats import read_confounds

    return read_confounds(path, (), 20)


def _read_columns(path: Path) -> object:
    from langcortex.brain.formats import count_scans, read_columns

    return count_scans(path), read_columns(path, None)


def _read_volume(path: Path) -> object:
    from langcortex.brain.formats import count_scans, read_clock
    from langcortex.brain.volumes import read_masked_scans

    return count_scans(path), read_clock(path), read_masked_scans(path, np.ones((4, 4, 4), dtype=bool))


def _read_mask(path: Path) -> object:
    from langcortex.brain.space import volume_space

    image = path.with_name("bold.nii.gz")
    if not image.is_file():
        image.write_bytes(_nifti_gz(np.random.default_rng(0)))
    return volume_space(path, [image])


def _mask(rng: np.random.Generator) -> bytes:
    import nibabel

    return gzip.compress(
        nibabel.Nifti1Image(np.ones((4, 4, 4), dtype=np.uint8), np.diag([2.0, 2, 2, 1])).to_bytes(), mtime=0
    )


def _read_surface(path: Path) -> object:
    from langcortex.brain.formats import read_clock, read_surface

    return read_surface((path, path)), read_clock((path, path))


def _read_hdf5(path: Path) -> object:
    from langcortex.brain.formats import read_hdf5

    return read_hdf5(path)


def _read_sidecar(path: Path) -> object:
    from langcortex.brain.formats import read_clock

    image = path.with_name(path.stem + ".nii.gz")
    image.write_bytes(_nifti_gz(np.random.default_rng(0)))
    return read_clock(image)


def _read_events(path: Path) -> object:
    from langcortex.datasets.bids import read_events, select_words

    return select_words(read_events(path))


def _read_vectors(path: Path) -> object:
    from langcortex.features.controls.word_vectors import read_vectors

    return read_vectors(path, {"cat", "the"})


def _read_matrix(path: Path) -> object:
    from langcortex.features.controls.word_vectors import read_vectors

    vocabulary = path.with_name("vocabulary.txt")
    vocabulary.write_text("cat\nmat\nthe\n")
    return read_vectors(path, {"cat", "the"}, vocabulary)


def _read_labels(path: Path) -> object:
    from langcortex.brain.atlases import read_labels

    return read_labels(path)


def _study(rng: np.random.Generator) -> bytes:
    return b'name = "s"\noutput = "out"\n[data]\npath = "data"\n[story]\nfiles = "{run}.tsv"\n[recording]\nfiles = "sub-{subject}_{run}.tsv"\ntr = 2.0\n[features]\ncontrols = ["word_rate"]\n'


def _read_study(path: Path) -> object:
    from langcortex.study.settings_file import read_study

    return read_study(path)


def _netcdf(rng: np.random.Generator, engine: str = "h5netcdf") -> bytes:
    import tempfile

    import xarray

    words = np.array(["a b c.", "d e f.", "g h i."])
    dataset = xarray.Dataset(
        {
            "data": (("presentation", "neuroid"), rng.standard_normal((3, 4)).astype(np.float32)),
            "stimulus_id": ("presentation", np.array(["s.1", "s.2", "s.3"])),
            "stimulus": ("presentation", words),
            "neuroid_id": ("neuroid", np.array(["n.1", "n.2", "n.3", "n.4"])),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nc"
        dataset.to_netcdf(path, engine=engine)  # type: ignore[call-overload]
        return path.read_bytes()


def _netcdf3(rng: np.random.Generator) -> bytes:
    return _netcdf(rng, "scipy")


def _gentle(rng: np.random.Generator) -> bytes:
    transcript, words, stop = "", [], 0
    for i, (word, onset, duration) in enumerate(_words(rng)):
        transcript += f"{word} "
        times = {} if i % 5 == 4 else {"start": round(onset, 3), "end": round(onset + duration, 3)}
        case = {"case": "success" if times else "not-found-in-audio", "word": word}
        words.append({**case, **times, "startOffset": stop, "endOffset": stop + len(word)})
        stop = len(transcript)
    return json.dumps({"transcript": transcript, "words": words}).encode()


def _narratives_events(rng: np.random.Generator) -> bytes:
    rows = ["onset\tduration\ttrial_type\tstim_file"]
    rows += ["0.0\t15.0\tmusic\tpieman_audio.wav", "15.0\t420.0\tstory\tpieman_audio.wav"]
    return "\n".join(rows).encode()


def _read_netcdf(path: Path) -> object:
    from langcortex.datasets import Reading, open_named

    corpus = open_named("brainscore", path, Reading(), {})
    return corpus.story(), [corpus.recording(s, r) for s in corpus.subjects() for r in corpus.runs(s)]


def _read_gentle(path: Path) -> object:
    from langcortex.datasets.gentle import read_gentle_story

    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / "align.json").write_bytes(path.read_bytes())
    return read_gentle_story({"run-1": folder}, {}, "story")


def _read_narratives_events(path: Path) -> object:
    from langcortex.datasets.narratives.scans import read_events

    return read_events(path)


def _l2_events(rng: np.random.Generator) -> bytes:
    header = (
        "onset\tduration\tLemmas\tWords\tRECORDING_SESSION_LABEL\tCURRENT_FIX_ADJUSTED\tCURRENT_FIX_DURATION\t"
        "CURRENT_FIX_INTEREST_AREA_ID\tCURRENT_FIX_START\tSentenceID\tSentenceRT\tTRUEOffset\tTRUEOnset"
    )
    rows = [header] + [
        f"{9548 + 200 * i}.0\t180\tw\tword{i % 7}\tS1\tFalse\t180\t{i % 7 + 1}\t{18 + 200 * (i % 7)}\tt.01.{i // 7 + 1:02d}\t1400\t"
        f"{9530 + 1400 * (i // 7 + 1)}\t{9530 + 1400 * (i // 7)}.0"
        for i in range(28)
    ]
    return "\n".join(rows).encode()


def _read_l2_events(path: Path) -> object:
    from langcortex.datasets.reading_brain.fixations import read_run

    return read_run(path)


READERS = {
    "story-tsv": Reader(".tsv", _table("\t"), _read_story),
    "story-csv": Reader(".csv", _table(","), _read_story),
    "textgrid-long": Reader(".TextGrid", _textgrid("long"), _read_story),
    "textgrid-chronological": Reader(".TextGrid", _textgrid("chronological"), _read_story),
    "textgrid-binary": Reader(".TextGrid", _textgrid("binary"), _read_story),
    "confounds": Reader(".tsv", _confounds, _read_confounds),
    "columns-tsv": Reader(".tsv", _confounds, _read_columns),
    "columns-npy": Reader(".npy", _npy, _read_columns),
    "nifti": Reader(".nii", _nifti, _read_volume),
    "nifti-gz": Reader(".nii.gz", _nifti_gz, _read_volume),
    "mask": Reader(".nii.gz", _mask, _read_mask),
    "gifti": Reader(".func.gii", _gifti, _read_surface),
    "hdf5": Reader(".hf5", _hdf5, _read_hdf5),
    "sidecar": Reader(".json", _sidecar, _read_sidecar),
    "events": Reader(".tsv", _events, _read_events),
    "netcdf": Reader(".nc", _netcdf, _read_netcdf),
    "netcdf-3": Reader(".nc", _netcdf3, _read_netcdf),
    "gentle-json": Reader(".json", _gentle, _read_gentle),
    "narratives-events": Reader(".tsv", _narratives_events, _read_narratives_events),
    "reading-brain-events": Reader(".tsv", _l2_events, _read_l2_events),
    "vectors-text": Reader(".txt", _vectors, _read_vectors),
    "vectors-npy": Reader(".npy", _matrix, _read_matrix),
    "atlas-labels": Reader(".tsv", _labels, _read_labels),
    "study-file": Reader(".toml", _study, _read_study),
}
