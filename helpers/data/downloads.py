"""Downloads of public data sets, with checksums."""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pooch

from helpers.data.files import GROUPS_FILE
from helpers.data.paths import data_root
from helpers.data.zips import extracted, rename_into_place
from helpers.errors import DataError


@dataclass(frozen=True)
class Remote:
    """A file with a stable address. Without a published hash, its size or None is all we know."""

    url: str
    known_hash: str | None = None
    size: int | None = None  # bytes

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


KTH = "https://www.csc.kth.se/cvap/actions/"
UCF = "https://www.crcv.ucf.edu/data/"
UT = "https://cvrc.ece.utexas.edu/SDHA2010/videos/competition_1/"
REMOTES = {
    "kth": (  # hashes as in visym/vipy, vipy/dataset/kthactions.py
        Remote(KTH + "walking.zip", "sha1:a3e81537271a0ab4576591774baa38c2d97b7e3a"),
        Remote(KTH + "jogging.zip", "sha1:21943bdbcef9dad106db0d74661e49eaeaa15a25"),
        Remote(KTH + "running.zip", "sha1:da83bb313edfd4455fffdda6263696fa10d43c6f"),
        Remote(KTH + "boxing.zip", "sha1:adb36ed9c29c846d44d2ba15f348bd115c951bbd"),
        Remote(KTH + "handwaving.zip", "sha1:0792f7cd69f7f895a205c08ac212ddaa7177e370"),
        Remote(KTH + "handclapping.zip", "sha1:d3b81261aa822ef63d0d1523f945bfaff27814d2"),
    ),
    "ucf50": (Remote(UCF + "UCF50.rar", size=3_233_554_570),),
    "ucf101": (
        Remote(UCF + "UCF101/UCF101.rar", "md5:6463accf4bbc20fa6418ab7f159e6149", 6_932_971_618),
        Remote(  # hash as in tensorflow/datasets, url_checksums/ucf101.txt
            UCF + "UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            "sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
            113_943,
        ),
    ),
    "ut_interaction": (Remote(UT + "ut-interaction_segmented_set1.zip", size=13_265_124),),
}


HASHES_FILE = "downloads.sha256"


def fetch(name: str, progress: bool | None = None) -> Path:
    """Download the data set `name` to `data_root()/downloads/name` and return its folder.

    Every file is checked on every call, and downloaded again only where it does not fit: against
    its published hash; where none is published, against its size and the hash that the first
    download wrote to `downloads.sha256` (as `sha256sum -c` reads it). The progress bar is for a
    person at a terminal, silent elsewhere, unless `progress` says otherwise. UT-Interaction is
    sorted into class folders with a `groups.csv`; a rar is left for you to unpack beside itself.

    Raises DataError for a set without a stable address, a failed download, a wrong hash or size.
    """
    if name not in REMOTES:
        raise DataError(
            f"{name}: no stable address, it has to be downloaded by hand; its card in "
            f"data/README.md says how. `fetch` knows {', '.join(REMOTES)}."
        )
    folder = data_root() / "downloads" / name
    paths = [_download(remote, folder, progress) for remote in REMOTES[name]]
    if name == "ut_interaction":
        return _sort_ut_interaction(paths[0], data_root() / name)
    return folder


def _download(remote: Remote, folder: Path, progress: bool | None) -> Path:
    path = folder / remote.name
    bar = sys.stderr.isatty() if progress is None else progress
    pooch.get_logger().setLevel("WARNING")  # it would write each address to stderr
    try:
        pooch.retrieve(
            remote.url,
            remote.known_hash or _first_hashes(folder).get(path.name),
            path.name,
            folder,
            downloader=pooch.HTTPDownloader(progressbar=bar),
        )
    except ValueError as error:  # pooch's word for a wrong hash; the file was not kept
        raise DataError(
            f"{path}: what {remote.url} sends is not the expected file ({error}). Try "
            "again later; if it stays so, see the card in data/README.md."
        ) from error
    except OSError as error:  # no network, a refused certificate, 404, disk full
        raise DataError(
            f"{path}: download from {remote.url} failed ({error}). Download it with a "
            "browser, put it there and call fetch again to check it."
        ) from error
    if remote.size not in (None, path.stat().st_size):
        raise DataError(
            f"{path}: {path.stat().st_size} bytes instead of {remote.size}, so cut off "
            "or another file. Delete it and call fetch again."
        )
    if remote.known_hash is None and path.name not in _first_hashes(folder):
        _record_hash(path)
    return path


def _first_hashes(folder: Path) -> dict[str, str]:
    path = folder / HASHES_FILE
    lines = path.read_text().splitlines() if path.is_file() else []
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def _record_hash(path: Path) -> None:
    digest = pooch.file_hash(str(path))
    with (path.parent / HASHES_FILE).open("a") as file:
        file.write(f"{digest}  {path.name}\n")
    print(f"{path.name}: no published hash to compare with; sha256 {digest} noted in {path.parent / HASHES_FILE}")


UT_LABELS = ("handshake", "hug", "kick", "point", "punch", "push")


def _sort_ut_interaction(path: Path, target: Path) -> Path:
    """`<number>_<sequence>_<label>.avi` of the zip into class folders and a `groups.csv`."""
    if target.is_dir():
        return target
    clips = sorted(extracted([path]).rglob("*.avi"))
    rows = []
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".sorting-") as temporary:
        content = Path(temporary) / "content"
        for clip in clips:
            _, sequence, label = (int(part) for part in clip.stem.split("_"))
            (content / UT_LABELS[label]).mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, content / UT_LABELS[label])
            rows.append((UT_LABELS[label], clip.name, f"sequence_{sequence:02d}"))
        with (content / GROUPS_FILE).open("w", newline="") as file:
            csv.writer(file).writerows([("label", "file", "group"), *rows])
        rename_into_place(content, target)
    return target
