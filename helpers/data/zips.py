"""Zip archives unpacked once, safely, into a cache."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

import pooch

from helpers.data.files import is_system_name, subfolders, visible_entries
from helpers.data.paths import REPOSITORY
from helpers.errors import DataError


def extracted(zips: list[Path], groups_file: Path | None = None) -> Path:
    """The content of one zip, or a folder for each of several zips, extracted once into a cache.

    The cache folder is keyed by each zip's path, size and time of change, so a replaced zip is
    extracted anew. Work is done in a temporary folder that is renamed at the end: an interrupted
    run leaves nothing half done.
    """
    stem = zips[0].parent.name if groups_file else zips[0].stem
    folder = _cache_folder() / f"{stem}-{_fingerprint(zips)}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpacking-") as temporary:
        content = Path(temporary) / "content"
        for path in zips:
            _extract(path, content / path.stem if groups_file else content)
        if groups_file:
            _finish_classes(content, groups_file)
        rename_into_place(content, folder)
    return folder


def _cache_folder() -> Path:
    """`.cache/extracted` of this repository, or the user's cache where that is read-only.

    Not below `data_root()`: data sets often lie on a disk that is shared with others.
    """
    for folder in (REPOSITORY / ".cache/extracted", Path(pooch.os_cache("human-action-emotion"))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise DataError(f"{folder}: cannot write there. Unpack the zip yourself, give the folder.")


def _fingerprint(zips: list[Path]) -> str:
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in zips]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def _extract(path: Path, target: Path) -> None:
    """Write the members of the zip `path` below `target`; DataError if impossible or unsafe."""
    try:
        with zipfile.ZipFile(path) as archive:
            # PureWindowsPath reads both kinds of slash, and knows drives: `..\\x`, `C:\\x`, `/x`
            members = [(m, PureWindowsPath(m.filename)) for m in archive.infolist()]
            for member, name in members:
                if name.anchor or ".." in name.parts:
                    raise DataError(
                        f"{path}: its member {member.filename!r} would be written "
                        "outside the target folder. Do not trust this zip; get it "
                        "from the data set's own source."
                    )
            target.mkdir(parents=True, exist_ok=True)
            for member, name in members:
                if not any(is_system_name(part) for part in name.parts):
                    _write_member(archive, member, target.joinpath(*name.parts))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a usable zip ({error}). Download it again.") from error
    except RuntimeError as error:  # encrypted, or packed by a method that Python does not know
        raise DataError(
            f"{path}: Python cannot unpack it ({error}). Unpack it yourself and give the folder."
        ) from error


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if member.filename.endswith(("/", "\\")):
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def _finish_classes(content: Path, groups_file: Path) -> None:
    """`walking.zip` may hold its files, or a folder `walking/` with them: make both alike."""
    for folder in subfolders(content):
        inner = visible_entries(folder)
        if len(inner) == 1 and inner[0].is_dir():
            inner[0].rename(content / ".wrapped")
            shutil.rmtree(folder)
            (content / ".wrapped").rename(folder)
    if groups_file.is_file():
        shutil.copy(groups_file, content)


def rename_into_place(content: Path, folder: Path) -> None:
    try:
        content.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first: its result is the same
            raise
