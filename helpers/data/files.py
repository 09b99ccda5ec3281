"""Which files are media, which folders hold them, and csv tables beside them."""

from __future__ import annotations

import csv
from pathlib import Path

from helpers.errors import DataError

VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
GROUPS_FILE = "groups.csv"
SYSTEM_FILES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


def is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and not path.is_dir()


def is_media(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def visible_entries(folder: Path) -> list[Path]:
    """What a person put into `folder`, sorted: nothing hidden, nothing the system adds."""
    return sorted(p for p in folder.iterdir() if not is_system_name(p.name))


def is_system_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def subfolders(folder: Path) -> list[Path]:
    return [p for p in visible_entries(folder) if p.is_dir()]


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # -sig: Excel writes a mark
            reader = csv.DictReader(file)
            found, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}).") from error
    if not set(columns) <= set(found):
        raise DataError(f"{path}: its first line must have {','.join(columns)}, but is {','.join(found)!r}.")
    return rows
