"""Zips are unpacked once, whole, and never outside their folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.data import folders
from helpers.errors import DataError
from tests.data.builders import as_zip, write_classes, zip_folder


def test_a_zip_is_extracted_once_and_again_when_it_changed(tmp_path):
    path = as_zip(tmp_path)
    first = folders.class_folders(path)
    written = (first / "run/a.avi").stat().st_mtime_ns
    assert folders.class_folders(path) == first
    assert (first / "run/a.avi").stat().st_mtime_ns == written
    write_classes(tmp_path / "unzipped", {"jump": ["d.avi"]})
    zip_folder(tmp_path / "unzipped", path)
    assert {s.label for s in folders.list_samples(path)} == {"jump", "run", "walk"}


def test_programs_that_extract_at_the_same_time_agree(tmp_path):
    path = as_zip(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(folders.class_folders, [path] * 8))
    assert len(made) == 1 and len(folders.list_samples(path)) == 3
    assert len(list(made.pop().parent.iterdir())) == 1, "no leftovers"


def test_a_read_only_repository_extracts_into_the_users_cache(tmp_path, monkeypatch):
    (tmp_path / "repository").write_text("a file, so no folder can be made in it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert tmp_path / "user" in folders.class_folders(as_zip(tmp_path)).parents


def test_encrypted_zip_says_what_to_do(tmp_path):
    path = as_zip(tmp_path)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the "encrypted" flag
        start = data.find(mark)
        while start >= 0:
            data[start + offset] |= 1
            start = data.find(mark, start + 4)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"set\.zip.*Unpack it yourself"):
        folders.class_folders(path)
