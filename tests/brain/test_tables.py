"""Tables of numbers: checked before memory is taken, and refused in one sentence."""

import io
import struct

import numpy as np
import pandas as pd
import pytest

from langcortex.brain.formats import count_scans, open_hdf5, read_columns, read_confounds, read_hdf5
from langcortex.brain.tables import open_npy, read_table, select_columns
from langcortex.errors import RecordingError

COLUMNS = ["trans_x", "a_comp_cor_00", "a_comp_cor_01", "t_comp_cor_00", "cosine00", "csf"]


def _write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_patterns_select_columns_in_the_order_of_the_table():
    select = lambda *names: select_columns(COLUMNS, names, "confounds.tsv", "Run 'a'")  # noqa: E731
    assert select("a_comp_cor_*") == COLUMNS[1:3]
    assert select("*_comp_cor_00", "csf", "a_comp_cor_*") == [
        "a_comp_cor_00",
        "t_comp_cor_00",
        "csf",
        "a_comp_cor_01",
    ]
    assert select("[tc]rans_?") == ["trans_x"]
    assert select() == COLUMNS
    with pytest.raises(
        RecordingError, match=r"Run 'a': confounds.tsv has no column that matches 'w_comp_cor_\*'"
    ):
        select("trans_x", "w_comp_cor_*")
    with pytest.raises(RecordingError, match=r"Run 'a': confounds.tsv has no column 'TRANS_X'"):
        select("TRANS_X")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\ta\n1\t2\t3\n", "two columns called 'a'"),
        ("a\ta \n1\t2\n", "two columns called 'a'"),
        ("a\tb\n1\t2\n3\n", "line 3 has 1 cells but the first line 2"),
        ("a\tb\n1\t2\t3\n", "line 2 has 3 cells"),
        ("a\tb\n1\t\x002\n", r"control character U\+0000 in line 2"),
        ("a\tb\n1\t2\x1b[0m\n", r"control character U\+001B"),
        ("a\tb\n1\tinf\n", "infinite number in row 0 of column 'b'"),
        ("a\tb\n1\t-inf\n", "infinite number"),
        ("a\tb\n1\t1e400\n", "infinite number"),
        ("a\tb\n1\tTrue\n", "text where numbers are needed: 'True'"),
        ("a\tb\n1\tx\n", "text where numbers are needed: 'x'"),
        ("1.5\t2.5\n1\t2\n", "begins with numbers"),
        (b"a\tb\n1\t\xff\n", "no text in UTF-8"),
    ],
)
def test_a_damaged_table_is_one_sentence(tmp_path, text, message):
    path = _write(tmp_path / "confounds.tsv", text)
    for read in (lambda: read_confounds(path, (), 1), lambda: read_columns(path, None)):
        with pytest.raises(RecordingError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_columns_that_are_not_named_may_hold_text(tmp_path):
    path = _write(tmp_path / "confounds.tsv", "\ufeffa\tnote\tb\nn/a\tx\t3\n2\tinf\t4\n")
    values, names = read_confounds(path, ("b", "a"), 2)
    assert names == ["b", "a"]
    np.testing.assert_array_equal(values, [[3, 0], [4, 2]])


def test_a_gap_names_the_run(tmp_path):
    path = _write(tmp_path / "confounds.tsv", "a\n1\nn/a\n3\n")
    with pytest.raises(RecordingError, match=r"Run '2' of subject '1': .*no number in row 1"):
        read_confounds(path, ("a",), 3, "Run '2' of subject '1'")


def test_tables_without_a_header_and_quoted_tables_are_read(tmp_path):
    path = _write(tmp_path / "r.csv", '"left, a",b\n1,2\n3,4\n')
    values, space = read_columns(path, None)
    assert space.names.tolist() == ["left, a", "b"]
    np.testing.assert_array_equal(values, [[1, 2], [3, 4]])
    assert read_columns(_write(tmp_path / "n.tsv", "1.5\t2\n3\t4\n"), ["x", "y"])[0].shape == (2, 2)
    assert read_table(path).shape == (2, 2)


def _npy(header, content=b""):
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}"), "declares 8,000,000,000,000 bytes"),
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", b"\0" * 20), "declares 24 bytes of numbers, but holds 20"),
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", b"\0" * 30), "holds 30"),
        (_npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}", b"\0" * 48), "type object; numbers are needed"),
        (_npy("{'descr': '<U2', 'fortran_order': False, 'shape': (2, 3)}", b"\0" * 48), "numbers are needed"),
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}", b"\0" * 24), r"shape \(6,\); scans × targets"),
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3)}", b"\0" * 24), "header is damaged"),
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}"), "holds no number"),
        (_npy("{'descr': [" * 40), "cannot be read as .npy"),
        (b"no array at all" * 9, "cannot be read as .npy"),
    ],
)  # fmt: skip
def test_a_damaged_npy_is_refused_before_memory_is_taken(tmp_path, content, message):
    path = _write(tmp_path / "r.npy", content)
    for read in (lambda: read_columns(path, None), lambda: count_scans(path)):
        with pytest.raises(RecordingError, match=message):
            read()


def test_a_pickle_in_the_place_of_an_array_is_refused(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RecordingError, match="numbers are needed"):
        open_npy(_write(tmp_path / "r.npy", stream.getvalue()))


def test_hdf5_takes_nothing_from_other_files(tmp_path, rng):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.hf5", "w") as other:
        other["data"] = rng.standard_normal((4, 3))
    (tmp_path / "raw.bin").write_bytes(b"\0" * 96)
    layout = h5py.VirtualLayout(shape=(4, 3), dtype="f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.hf5"), "data", shape=(4, 3))
    with h5py.File(tmp_path / "a.hf5", "w") as file:
        file["linked"] = h5py.ExternalLink("other.hf5", "/data")
        file["group/linked"] = h5py.ExternalLink("other.hf5", "/")
        file["soft"] = h5py.SoftLink("/linked")
        file["circle"] = h5py.SoftLink("/circle")
        file["own"] = h5py.SoftLink("/group/data")
        file["group/data"] = rng.standard_normal((4, 3))
        file["text"] = "words"
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("outside", (4, 3), "f8", external=[(str(tmp_path / "raw.bin"), 0, 96)])
        file.create_dataset("large", (10**6, 10**6), "f8", chunks=(10, 10))
    path = tmp_path / "a.hf5"
    for key, message in {
        "linked": "link to another file", "group/linked/data": "link to another file", "soft": "link to another file",
        "circle": "circle", "virtual": "from another file", "outside": "from another file", "text": "no array of numbers",
        "group": "no array of numbers", "absent": "no dataset 'absent'", "large": "declares 8,000,000,000,000 bytes",
    }.items():  # fmt: skip
        with pytest.raises(RecordingError, match=message):
            read_hdf5(path, key)
    assert read_hdf5(path, "own")[0].shape == (4, 3)
    with open_hdf5(path, "group/data") as data:
        assert data.shape == (4, 3)


def test_confounds_of_any_format_agree(tmp_path, rng):
    values = rng.standard_normal((9, 3))
    np.savetxt(tmp_path / "c.txt", values)
    np.save(tmp_path / "c.npy", values)
    pd.DataFrame(values, columns=list("012")).to_csv(tmp_path / "c.tsv", sep="\t", index=False)
    for name in ("c.txt", "c.npy", "c.tsv"):
        read, names = read_confounds(tmp_path / name, ("2", "0"), 9)
        assert names == ["2", "0"]
        np.testing.assert_allclose(read, values[:, [2, 0]], rtol=1e-12)
