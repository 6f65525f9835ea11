"""Saved results: named by all that decides them, complete or not there at all."""

import os
import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langcortex.cache import Store, atomic_write, digest
from langcortex.errors import StoreError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "part",
    [
        np.array([{}, None], dtype=object),
        object(),
        b"bytes",
        {1, 2},
        lambda: 1,
        np.int64(3),
        np.array(["2020"], "M8[Y]"),
    ],
)
def test_parts_that_are_neither_numbers_nor_json_cannot_name_a_result(part):
    with pytest.raises(TypeError):
        digest(part)


def test_the_order_of_keys_does_not_change_a_name_and_all_else_does():
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1})
    x = np.arange(6, dtype=np.float32)
    names = [
        digest(x), digest(x.astype(np.float64)), digest(x.view(np.int32)), digest(x.reshape(2, 3)), digest(x + 1), digest(x, None), digest(x.tolist()),
        digest(), digest("ab"), digest("a", "b"), digest(["a", "b"]), digest("1"), digest(1), digest(True), digest(1.5),
        digest(np.array(["ab"])), digest(np.array([b"ab"])),
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    assert digest(x.reshape(2, 3).T) == digest(
        np.ascontiguousarray(x.reshape(2, 3).T)
    )  # the memory layout does not matter


@given(st.lists(JSON, max_size=3), st.lists(JSON, max_size=3))
def test_different_parts_have_different_names(a, b):
    import json

    is_equal = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (digest(*a) == digest(*b)) == is_equal


def test_a_result_is_read_as_it_was_saved(tmp_path, rng):
    store = Store(tmp_path / "new" / "folder")
    arrays = {"layer-00": rng.standard_normal((4, 3)).astype(np.float32), "rows": np.array(["a", "b"])}
    assert "key" not in store
    store.save("key", arrays, {"words": 4})
    assert "key" in store
    for name, array in arrays.items():
        np.testing.assert_array_equal(store.array("key", name), array)
    assert isinstance(store.array("key", "layer-00"), np.memmap)
    assert store.meta("key") == {"words": 4}


def test_a_result_whose_writing_fails_is_not_there(tmp_path, monkeypatch):
    store, real = Store(tmp_path), np.save

    def full_disk(path, array, **options):
        if path.name == "second.npy":
            raise OSError(28, "No space left on device")
        real(path, array, **options)

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(StoreError, match="No space left on device"):
        store.save("key", {"first": np.zeros(3), "second": np.zeros(3)})
    assert "key" not in store
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(ValueError):  # no pickles: an array of objects cannot be saved
        store.save("key", {"objects": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []


def test_the_first_to_save_a_key_wins_and_the_other_leaves_no_file(tmp_path):
    store = Store(tmp_path)
    store.save("key", {"x": np.zeros(2)})
    store.save("key", {"x": np.ones(2)})
    np.testing.assert_array_equal(store.array("key", "x"), np.zeros(2))
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_an_unreadable_result_is_an_error_that_names_the_folder_to_delete(tmp_path):
    store = Store(tmp_path)
    store.save("key", {"x": np.zeros(100)})
    (tmp_path / "key" / "x.npy").write_bytes(b"")
    for broken in (
        lambda: store.array("key", "x"),
        lambda: store.array("key", "y"),
        lambda: store.meta("other"),
    ):
        with pytest.raises(StoreError, match=r"Delete the folder .* and run again"):
            broken()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Nothing can be saved"):
        Store(tmp_path / "file").save("key", {})


def test_a_file_is_written_completely_or_stays_as_it_was(tmp_path):
    path = tmp_path / "sub" / "map.nii.gz"
    with atomic_write(path) as draft:
        assert draft.parent == path.parent
        assert draft.name.endswith(".nii.gz")
        draft.write_text("old")
        assert not path.exists()
    assert path.read_text() == "old"
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    for mistake, error in (
        (RuntimeError("bug"), RuntimeError),
        (OSError(28, "No space left on device"), StoreError),
    ):
        with pytest.raises(error), atomic_write(path) as draft:  # noqa: PT012
            draft.write_text("half")
            raise mistake
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["map.nii.gz"]


def test_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a.txt") as draft:
            draft.write_text("a")
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_a_folder_that_cannot_be_created_is_an_error_for_the_user(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="could not be written"),
        atomic_write(tmp_path / "file" / "a.txt") as draft,
    ):
        draft.write_text("a")
