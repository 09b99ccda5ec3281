"""Data sets are found by name."""

from __future__ import annotations

import pytest

from helpers.data import paths
from tests.data.builders import ACTIONS, write_classes, zip_folder


@pytest.mark.parametrize(
    "place, name, reason",
    [
        ("fer2013.zip", "fer2013", "the zip as it comes"),
        ("fer2013", "fer2013", "its folder"),
        ("actions/everyday", "everyday", "sorted by task"),
        ("faces/ckplus48", "ckplus48", "sorted by task"),
        ("CK+48.zip", "ckplus48", "the name that the source uses"),
        ("UCF-101", "ucf101", "what UCF101.rar unpacks to"),
        ("downloads/kth", "kth", "where fetch puts it"),
    ],
)
def test_find_dataset(tmp_path, place, name, reason):
    assert paths.find_dataset(name) is None, "no data root at all"
    path = tmp_path / "data" / place
    if path.suffix == ".zip":
        write_classes(tmp_path / "unzipped", ACTIONS)
        zip_folder(tmp_path / "unzipped", path)
    else:
        path.mkdir(parents=True)
        assert paths.find_dataset(name) is None, "an empty folder is not a data set"
        write_classes(path, ACTIONS)
    assert paths.find_dataset(name) == path, reason
    assert paths.find_dataset("weizmann") is None
