"""Damaged files of every kind that is read: an answer or a DataError, never anything else. HAR_FUZZ=20 tries longer."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.data import files, folders, images, videos
from helpers.errors import DataError
from tests.data.builders import ACTIONS, mutated, write_classes

ROUNDS = 150 * int(os.environ.get("HAR_FUZZ", "1"))


def image(suffix: str) -> Callable[[Path], bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    return lambda root: cv2.imencode(suffix, pixels)[1].tobytes()


def clip(suffix: str, codec: str | None = None) -> Callable[[Path], bytes]:
    frames = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), np.uint8)
    return lambda root: videos.write_video(root / f"whole{suffix}", frames, codec=codec).read_bytes()


def archive(method: int) -> Callable[[Path], bytes]:
    def make(root: Path) -> bytes:
        clips = write_classes(root / "unzipped", ACTIONS)
        with zipfile.ZipFile(root / "whole", "w", method) as file:
            for path in sorted(clips.rglob("*.avi")):
                file.write(path, path.relative_to(clips).as_posix())
        return (root / "whole").read_bytes()

    return make


def table(root: Path) -> bytes:
    return b"label,file,group\r\n" + b'run,"a, b.avi",p1\r\nwalk,c.avi,p2\n' * 4


KINDS = [
    *((f"a{suffix}", image(suffix), images.read_image) for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff")),
    ("a.avi", clip(".avi"), lambda path: list(videos.read_frames(path, []))),
    ("a.mp4", clip(".mp4"), lambda path: list(videos.read_frames(path, []))),
    ("a.webm", clip(".webm", "VP80"), lambda path: list(videos.read_frames(path, []))),
    ("stored.zip", archive(zipfile.ZIP_STORED), folders.list_samples),
    ("deflated.zip", archive(zipfile.ZIP_DEFLATED), folders.list_samples),
    ("bzip2.zip", archive(zipfile.ZIP_BZIP2), folders.list_samples),
    ("lzma.zip", archive(zipfile.ZIP_LZMA), folders.list_samples),
    ("groups.csv", table, lambda path: files.read_csv(path, ("label", "file", "group"))),
]


@pytest.mark.parametrize("name, make, read", KINDS, ids=[row[0] for row in KINDS])
def test_damage_of_any_kind(tmp_path, name, make, read):
    whole, path, named = make(tmp_path), tmp_path / name, 0
    for seed in range(ROUNDS if name.endswith(("jpg", "png", "csv", "avi", "mp4", "webm")) else ROUNDS // 3):
        path.write_bytes(mutated(whole, np.random.default_rng((7, seed))))
        try:
            read(path)
        except DataError as error:
            assert name in str(error), f"seed {seed}: which file?"
            named += 1
    assert named, "the damage was noticed at least once"
