"""Where the repository, its artifacts and the data sets lie."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from helpers.data.files import is_zip, visible_entries

REPOSITORY = Path(__file__).resolve().parents[2]
ARTIFACTS = REPOSITORY / "artifacts"


def data_root() -> Path:
    """The folder that holds the data sets: `$HAR_DATA`, or `data/` of this repository."""
    return Path(os.environ.get("HAR_DATA") or REPOSITORY / "data").expanduser()


def find_dataset(name: str) -> Path | None:
    """The folder or zip of the data set `name` ("fer2013", "everyday", "kth"), None if not there.

    Looked for below `data_root()` and its `actions/`, `faces/`, `downloads/`, in that order; a
    folder goes before a zip. Case and punctuation do not matter: "ucf101" finds `UCF-101`,
    "ckplus48" finds `CK+48.zip`.
    """
    for place in ("", "actions", "faces", "downloads"):
        folder = data_root() / place
        entries = visible_entries(folder) if folder.is_dir() else []
        found = [p for p in entries if _plain(p.name.removesuffix(".zip")) == _plain(name)]
        usable = [p for p in found if is_zip(p) or (p.is_dir() and visible_entries(p))]
        if usable:
            return min(usable, key=is_zip)
    return None


def _plain(name: str) -> str:
    """Letters and digits of any script alone; the name itself when it has none."""
    text = unicodedata.normalize("NFKC", name).casefold().replace("+", "plus")
    return re.sub(r"[\W_]", "", text) or name
