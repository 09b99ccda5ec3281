"""Zips are unpacked once, whole, and never outside their folder."""

from __future__ import annotations

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers.data import folders, zips
from helpers.errors import DataError
from tests.data.builders import ACTIONS, as_zip, write_classes, zip_folder


def test_a_zip_is_extracted_once_and_again_when_it_changed(tmp_path):
    path = as_zip(tmp_path)
    first = folders.class_folders(path)
    written = (first / "run/a.avi").stat().st_mtime_ns
    assert folders.class_folders(path) == first
    assert (first / "run/a.avi").stat().st_mtime_ns == written
    write_classes(tmp_path / "unzipped", {"jump": ["d.avi"]})
    zip_folder(tmp_path / "unzipped", path)
    assert {s.label for s in folders.list_samples(path)} == {"jump", "run", "walk"}


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"cut off")], ids=["missing", "cut off"])
def test_what_is_no_longer_whole_is_extracted_anew(tmp_path, harm):
    """Somebody tidied the cache up, or the disk was repaired: no clip goes missing silently."""
    path = as_zip(tmp_path)
    first = folders.class_folders(path)
    whole = (first / "run/a.avi").read_bytes()
    harm(first / "run/a.avi")
    assert (folders.class_folders(path) / "run/a.avi").read_bytes() == whole
    assert len(folders.list_samples(path)) == 3


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


# --- Hostile and damaged archives --------------------------------------------------------------------------------


def nested(root: Path) -> Path:
    """A zip in a zip in a zip ..., deeper than anybody means it."""
    path = as_zip(root)
    for level in range(12):
        outer = root / f"level{level}" / "set.zip"
        outer.parent.mkdir()
        with zipfile.ZipFile(outer, "w") as archive:
            archive.write(path, "set.zip")
        path = outer
    return path


def bomb(root: Path) -> Path:
    with zipfile.ZipFile(root / "set.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("run/a.avi", bytes(150_000_000))
    return root / "set.zip"


def name_that_is_not_utf8(root: Path) -> Path:
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        archive.writestr("run/ä.avi", b"x")
    data = (root / "set.zip").read_bytes()
    (root / "set.zip").write_bytes(data.replace("ä".encode(), b"\xff\xfe"))
    return root / "set.zip"


def with_members(root: Path, *names: str) -> Path:
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return root / "set.zip"


HOSTILE = [
    (nested, "more than 5 zips or folders", "zips without end, as one that contains itself"),
    (bomb, "would become 150,000,000", "a bomb"),
    (name_that_is_not_utf8, "not a usable zip", "a name that claims to be UTF-8"),
    (lambda root: with_members(root, "run/a", "run/a/b.avi"), "cannot be unpacked", "a file and a folder of one name"),
    (
        lambda root: with_members(root, "run/" + "x" * 300 + ".avi"),
        "cannot be unpacked",
        "a name longer than any disk's",
    ),
]


@pytest.mark.parametrize("make, message, reason", HOSTILE, ids=[row[2] for row in HOSTILE])
def test_a_hostile_zip_is_named(tmp_path, make, message, reason):
    with pytest.raises(DataError, match=f"(?s){message}"):
        folders.list_samples(make(tmp_path))
    assert not list(tmp_path.rglob("unpacking-*")), "nothing half done stays"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_of_every_method_is_named(tmp_path, method):
    """One byte after another is changed: either nobody notices, because it is in no way part of the content, or it is
    said which zip is damaged."""
    clips, named = write_classes(tmp_path / "unzipped", ACTIONS), 0
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", method) as archive:
        for path in sorted(clips.rglob("*.avi")):
            archive.write(path, path.relative_to(clips).as_posix())
    whole = (tmp_path / "whole.zip").read_bytes()
    for place in np.random.default_rng(1).integers(0, len(whole), 60):
        data = bytearray(whole)
        data[place] ^= 0x55
        (tmp_path / f"{place}.zip").write_bytes(data)
        try:
            folders.class_folders(tmp_path / f"{place}.zip")
        except DataError as error:
            assert f"{place}.zip" in str(error)
            named += 1
    assert named > 40


def test_a_zip_that_the_disk_cannot_hold_is_refused_before_it_is_unpacked(tmp_path):
    path = as_zip(tmp_path)
    with pytest.raises(DataError, match=r"set\.zip: unpacked it takes 1,000 bytes, the disk has 1,000 left"):
        zips._check_size(path, 1000, free=1000)
    zips._check_size(path, 1000, free=2000)


def test_what_killed_runs_left_is_swept(tmp_path):
    cache = tmp_path / "repository/.cache/extracted"
    left = [cache / name for name in ("unpacking-999999999-abc", "unpacking-old_style", f"unpacking-{os.getpid()}-abc")]
    for folder in left:
        (folder / "content").mkdir(parents=True)
    folders.class_folders(as_zip(tmp_path))
    assert [folder.exists() for folder in left] == [False, False, True], "the last one is still at work"
