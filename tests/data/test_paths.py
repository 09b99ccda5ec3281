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


def test_names_of_other_scripts_are_told_apart():
    """Without their Latin letters they would all be one name."""
    for name in ("日本", "Ελλάδα", "!!!"):
        write_classes(paths.data_root() / name, ACTIONS)
    assert paths.find_dataset("中国") is None and paths.find_dataset("???") is None
    assert paths.find_dataset("日本") == paths.data_root() / "日本"
    assert paths.find_dataset("ελλαδα") is None and paths.find_dataset("ΕΛΛΆΔΑ") == paths.data_root() / "Ελλάδα"
    assert paths.find_dataset("!!!") == paths.data_root() / "!!!"
