"""Images that are there twice are found, whatever the file."""

from __future__ import annotations

from helpers.data import duplicates, fer2013, folders, paths
from helpers.data.folders import Sample
from tests.data.builders import write_image


def test_duplicates_are_found_by_pixels(tmp_path):
    train = [Sample(write_image(tmp_path / f"train{i}.png", seed=i), "a", f"t{i}") for i in range(3)]
    copy = write_image(tmp_path / "copy.bmp", seed=1)  # the same pixels in another format
    other = write_image(tmp_path / "other.png", seed=9)
    turned = write_image(tmp_path / "turned.png", seed=1, size=(32, 24))  # same bytes, other shape
    test = [Sample(p, "a", p.name) for p in (copy, other, turned)]
    assert duplicates.duplicate_pixels(train, test) == {copy}
    grouped = duplicates.group_by_pixels([*train, *test])
    assert len({s.group for s in grouped}) == 5
    assert grouped[1].group == grouped[3].group


def test_real_fer2013_counts_and_leak(real_data):
    source = real_data("fer2013")
    train, test = (folders.list_split(source, part) for part in ("train", "test"))
    assert (len(train), len(test)) in ((28_709, 3_589), (28_709, 7_178)), "PublicTest, or both"
    public = [s for s in test if not s.path.name.startswith("PrivateTest")]
    leaked = duplicates.duplicate_pixels(train, public)
    assert len(public) == 3_589 and len(leaked) == 280
    manifest = paths.data_root() / "fer2013_manifest.csv"
    if manifest.is_file():
        marked = {
            row.file.rsplit("/", 1)[1]
            for row in fer2013.read_manifest(manifest)
            if row.usage == "PublicTest" and row.copies_in_training
        }
        assert {path.name for path in leaked} == marked
