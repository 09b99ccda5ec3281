"""The manifest of FER-2013."""

from __future__ import annotations

import pytest

from helpers.data import fer2013
from helpers.errors import DataError


def test_read_manifest(tmp_path):
    path = tmp_path / "fer2013_manifest.csv"
    header = ["file", "label", "usage", "copies_in_Training", *fer2013.FER_PLUS]
    voted = ["test/angry/1.jpg", "angry", "PublicTest", 2, *range(10)]
    unvoted = ["test/angry/2.jpg", "angry", "PublicTest", 0, *[""] * 10]
    path.write_text("\n".join(",".join(map(str, row)) for row in (header, voted, unvoted)))
    first, second = fer2013.read_manifest(path)
    assert (first.file, first.copies_in_training, first.votes["NF"]) == ("test/angry/1.jpg", 2, 9)
    assert second.votes == {}, "FER+ has no votes for a few files"
    path.write_text(",".join(header) + "\n" + ",".join(["x"] * len(header)) + "\n")
    with pytest.raises(DataError, match="manifest.*whole number"):
        fer2013.read_manifest(path)
    path.write_text(",".join(header) + "\n" + ",".join(map(str, unvoted[:4])) + "\n")
    with pytest.raises(DataError, match="manifest.*line 2 has 4 cells"):
        fer2013.read_manifest(path)
    for broken in ("file,label\n", ""):
        path.write_text(broken)
        with pytest.raises(DataError, match="manifest.*must have"):
            fer2013.read_manifest(path)
    with pytest.raises(DataError, match="gone.*cannot be read"):
        fer2013.read_manifest(tmp_path / "gone.csv")
