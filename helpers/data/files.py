"""Names and kinds of files: which are media, in which order they come, tables beside them, files written whole."""

from __future__ import annotations

import csv
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.errors import DataError

VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
GROUPS_FILE = "groups.csv"
_SYSTEM_FILES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


def is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and not path.is_dir()


def is_media(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def visible_entries(folder: Path) -> list[Path]:
    """What a person put into `folder`, sorted: nothing hidden, nothing the system adds."""
    return sorted(p for p in folder.iterdir() if not is_system_name(p.name))


def is_system_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def subfolders(folder: Path) -> list[Path]:
    return [p for p in visible_entries(folder) if p.is_dir()]


def natural_key(path: Path) -> tuple:
    """Sorts frame2.png before frame10.png: digits count as the number they write."""
    parts = re.split(r"(\d+)", path.stem)
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], path.name


def has_utf8_name(path: Path | str) -> bool:
    """Whether OpenCV may be given this path at all: it ends the process on any other, reading and writing."""
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def why_unreadable(path: Path) -> str:
    """Why `path` must not even be opened, in words; empty when nothing speaks against it.

    Reading a pipe waits for ever; about names see `has_utf8_name`.
    """
    if not has_utf8_name(path):
        return "its name is not UTF-8; rename it"
    if path.is_file():
        return ""
    if path.is_dir():
        return "a folder, not a file"
    return "not a regular file" if path.exists() else "no such file"


def printable(path: Path | str) -> str:
    """The path for a message: bytes that are not UTF-8 and control characters as backslash escapes."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """A place beside `path` to write to: renamed to `path` at the end, removed after an error.

    Nobody ever finds half a file there: not after a kill, not on a full disk, not while another process writes it.
    """
    path = Path(path)
    part = path.with_name(f".{os.getpid()}_{threading.get_ident()}_{path.name}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_csv(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table as (line number, {column: cell}).

    Raises DataError naming the file and the line: not text, an unclosed quote, a row that is too short or too long, a
    first line without these columns.
    """
    if why := why_unreadable(path):
        raise DataError(f"{printable(path)}: cannot be read as a table ({why}).")
    rows: list[tuple[int, list[str]]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # -sig: Excel writes a mark
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if any("\0" in cell for cell in cells):
                    raise csv.Error("a NUL byte")
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        begun = rows[-1][0] + 1 if rows else 1
        raise DataError(
            f"{path}: cannot be read as a table ({error} in the row that begins in line {begun})."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}).") from error
    header = rows[0][1] if rows else []
    if not set(columns) <= set(header):
        raise DataError(f"{path}: its first line must have {','.join(columns)}, but is {','.join(header)[:200]!r}.")
    filled = [(line, cells) for line, cells in rows[1:] if cells]
    for line, cells in filled:
        if len(cells) != len(header):
            raise DataError(f"{path}: line {line} has {len(cells)} cells, but the first line names {len(header)}.")
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in filled]
