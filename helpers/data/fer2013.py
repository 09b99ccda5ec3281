"""FER-2013's manifest: usage, duplicates, FER+ votes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.data.files import read_csv
from helpers.errors import DataError


@dataclass(frozen=True)
class ManifestRow:
    """One FER-2013 file: its label, its part, its copies in Training, its ten FER+ votes."""

    file: str  # "test/angry/PublicTest_10116449.jpg"
    label: str
    usage: str  # "Training" or "PublicTest"
    copies_in_training: int  # of the same pixels, itself not counted
    votes: Mapping[str, int]  # FER+ name -> raters ("NF": no face); empty where FER+ has none


FER_PLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def read_manifest(path: Path | str) -> list[ManifestRow]:
    """The rows of a `fer2013_manifest.csv`. Raises DataError for missing columns or cells and for non-numbers.

    A PublicTest row with `copies_in_training == 0` is leak-free. Without such a file,
    `duplicate_pixels` finds the same from the images.
    """
    rows = []
    for line, row in read_csv(Path(path), ("file", "label", "usage", "copies_in_Training", *FER_PLUS)):
        try:
            copies, votes = int(row["copies_in_Training"]), {name: int(row[name]) for name in FER_PLUS if row[name]}
        except ValueError as error:
            raise DataError(f"{path}: a count in line {line} is not a whole number ({error}).") from error
        rows.append(ManifestRow(row["file"], row["label"], row["usage"], copies, votes))
    return rows
