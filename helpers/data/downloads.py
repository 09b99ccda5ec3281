"""Downloads of public data sets, checked against a registry of hashes."""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from pathlib import Path

import pooch

from helpers.data.files import GROUPS_FILE
from helpers.data.paths import data_root
from helpers.data.zips import extracted, rename_into_place
from helpers.errors import DataError

REGISTRY = Path(__file__).with_name("registry.txt")
UNHASHED = {  # nobody publishes a hash: address, and the size in bytes, which is all there is to check
    "ucf50/UCF50.rar": ("https://www.crcv.ucf.edu/data/UCF50.rar", 3_233_554_570),
    "ut_interaction/ut-interaction_segmented_set1.zip": (
        "https://cvrc.ece.utexas.edu/SDHA2010/videos/competition_1/ut-interaction_segmented_set1.zip",
        13_265_124,
    ),
}
_UT_LABELS = ("handshake", "hug", "kick", "point", "punch", "push")


def fetch(name: str) -> Path:
    """Download the data set `name` to `data_root()/downloads/name` and return its folder.

    Every file is checked on every call, by its published hash or, where there is none, by its size; one that does not
    fit its hash is downloaded again. A progress bar is shown at a terminal. UT-Interaction is sorted into class folders
    with a `groups.csv`; a rar is left for you to unpack beside itself.

    Raises DataError for a set without a stable address, a failed download, a wrong hash or size.
    """
    store = _store()
    files = [file for file in store.registry if file.startswith(f"{name}/")]
    if not files:
        known = sorted({file.split("/")[0] for file in store.registry})
        raise DataError(
            f"{name}: no stable address, it has to be downloaded by hand; its card in data/README.md says how. "
            f"`fetch` knows {', '.join(known)}."
        )
    paths = [_fetch_file(store, file) for file in files]
    if name == "ut_interaction":
        return _sort_ut_interaction(paths[0], data_root() / name)
    return paths[0].parent


def _store() -> pooch.Pooch:
    store = pooch.create(data_root() / "downloads", base_url="")
    store.load_registry(REGISTRY)
    for file, (url, _) in UNHASHED.items():
        store.registry[file], store.urls[file] = None, url
    return store


def _fetch_file(store: pooch.Pooch, file: str) -> Path:
    pooch.get_logger().setLevel("WARNING")  # it would write each address to stderr
    path, url = store.abspath / file, store.get_url(file)
    try:
        store.fetch(file, downloader=pooch.HTTPDownloader(progressbar=sys.stderr.isatty()))
    except ValueError as error:  # pooch's word for a wrong hash; the file was not kept
        raise DataError(
            f"{path}: what {url} sends is not the expected file ({error}). Try again later; if it stays so, see the "
            "card in data/README.md."
        ) from error
    except OSError as error:  # no network, a refused certificate, 404, disk full
        raise DataError(
            f"{path}: download from {url} failed ({error}). Download it with a browser, put it there and call fetch "
            "again to check it."
        ) from error
    if file in UNHASHED and path.stat().st_size != UNHASHED[file][1]:
        raise DataError(
            f"{path}: {path.stat().st_size} bytes instead of {UNHASHED[file][1]}, so cut off or another file. Delete "
            "it and call fetch again."
        )
    return path


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
            (content / _UT_LABELS[label]).mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, content / _UT_LABELS[label])
            rows.append((_UT_LABELS[label], clip.name, f"sequence_{sequence:02d}"))
        with (content / GROUPS_FILE).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("label", "file", "group"), *rows])
        rename_into_place(content, target)
    return target
