"""Small real files that the tests of data make: images, videos, class folders, zips, groups.csv."""

from __future__ import annotations

import csv
import os
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

from helpers.data.videos import write_video

ACTIONS = {"run": ["a.avi", "b.avi"], "walk": ["c.avi"]}


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def write_clip(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, np.random.default_rng(seed).integers(0, 256, (3, 24, 32, 3), np.uint8), fps=10)


def write_classes(root: Path, classes: dict[str, list[str]]) -> Path:
    for label, names in classes.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for seed, name in enumerate(names):
            write = write_clip if name.endswith(".avi") else write_image
            write(root / label / name, seed)
    return root


def zip_folder(folder: Path, path: Path, prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def write_groups(root: Path, rows: list[tuple[str, str, str]]) -> None:
    with (root / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("label", "file", "group"), *rows])


def as_folder(root: Path) -> Path:
    return write_classes(root / "set", ACTIONS)


def as_zip(root: Path) -> Path:
    return zip_folder(write_classes(root / "unzipped", ACTIONS), root / "set.zip")


def as_zip_per_class(root: Path) -> Path:
    folder = write_classes(root / "unzipped", ACTIONS)
    zip_folder(folder / "run", root / "set/run.zip")
    return zip_folder(folder / "walk", root / "set/walk.zip", "walk/").parent


BAD_NAME = os.fsdecode(b"caf\xe9.avi")  # Latin-1, as on an old disk: not UTF-8


def damage_frame(path: Path, number: int) -> Path:
    """The MJPG avi with one frame that no decoder can make anything of."""
    data = bytearray(path.read_bytes())
    place = data.index(b"movi")
    for _ in range(number + 1):
        place = data.index(b"00dc", place + 1)
    size = int.from_bytes(data[place + 4 : place + 8], "little")
    data[place + 8 : place + 8 + size] = bytes(size)
    path.write_bytes(data)
    return path


def with_durations(path: Path, durations: list[int]) -> Path:
    """The mp4 with frames that last so many times as long: a variable rate under the same header."""
    data = bytearray(path.read_bytes())
    start = data.index(b"stts") - 4
    old, unit = (int.from_bytes(data[place : place + 4], "big") for place in (start, start + 20))
    rows = b"".join(struct.pack(">II", 1, duration * unit) for duration in durations)
    table = struct.pack(">4sII", b"stts", 0, len(durations)) + rows
    data[start : start + old] = struct.pack(">I", len(table) + 4) + table
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = data.index(name) - 4
        size = int.from_bytes(data[place : place + 4], "big")
        data[place : place + 4] = struct.pack(">I", size + len(table) + 4 - old)
    path.write_bytes(data.replace(b"edts", b"free"))  # it says how long the video was
    return path


def png_header(width: int, height: int) -> bytes:
    """A whole PNG of so many black pixels: a few hundred kB that ask for gigabytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packed, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    pixels = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, and one time in three cut off, a part repeated or a part left out."""
    changed = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(0, len(changed), rng.integers(1, 9))
    changed[places] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, *rng.integers(0, 256, 3)], len(places))
    first, second = sorted(rng.integers(0, len(changed), 2))
    whole = changed.tobytes()
    return (whole, whole, whole[:second], whole[:second] + whole[first:], whole[:first] + whole[second:])[
        rng.integers(5)
    ]
