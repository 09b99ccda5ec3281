"""Synthetic data sets on disk: clips, faces and the demo clip; the cached ones are made anew when a painter changes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2

from helpers.data.cache import cache_folder
from helpers.data.files import GROUPS_FILE, whole_file
from helpers.data.images import read_image
from helpers.data.videos import read_frames, write_video
from helpers.errors import DataError
from helpers.synthetic import generator_version
from helpers.synthetic.demo import DEMO_FPS, render_demo
from helpers.synthetic.faces import EXPRESSIONS, render_expression
from helpers.synthetic.scenes import ACTIONS, render_action

_FIRST_TEST_SEED = 1_000_000  # faces from here on are other identities: they only ever appear in test/


def write_action_samples(
    folder: str | Path,
    people: Iterable[int],
    actions: Sequence[str] = ACTIONS,
    *,
    seconds: float = 2.5,
    size: tuple[int, int] = (240, 320),
    fps: float = 25,
) -> Path:
    """`<folder>/<action>/personNNN.mp4` for each seed in `people`, and groups.csv; returns the folder.

    groups.csv has the columns label, file, group; the group is the person. size: (height, width) in pixels. Clips that
    are already there and can be read are kept, so a second call is cheap.
    """
    folder, people = Path(folder), tuple(people)
    for action in actions:
        (folder / action).mkdir(parents=True, exist_ok=True)
        for seed in people:
            path = folder / action / f"person{seed:03d}.mp4"
            if not _is_video(path):
                write_video(path, render_action(action, seed, seconds, size=size, fps=fps), fps)
    with whole_file(folder / GROUPS_FILE) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("label", "file", "group"))
        rows.writerows((path.parent.name, path.name, path.stem) for path in sorted(folder.glob("*/person*.mp4")))
    return folder


def write_emotion_samples(folder: str | Path, per_class: int, test_per_class: int | None = None) -> Path:
    """FER-2013's layout: `train/<class>/*.png` and `test/<class>/*.png`, 48x48 gray; returns the folder.

    test/ holds a quarter as many unless told, and nobody who is in train/. Files that are already there and can be read
    are kept.
    """
    folder = Path(folder)
    test_per_class = max(1, per_class // 4) if test_per_class is None else test_per_class
    for split, first, count in (("train", 0, per_class), ("test", _FIRST_TEST_SEED, test_per_class)):
        for label in EXPRESSIONS:
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            for seed in range(first, first + count):
                path = folder / split / label / f"person{seed:07d}.png"
                if not _is_image(path):
                    with whole_file(path) as part:
                        part.write_bytes(cv2.imencode(".png", render_expression(label, seed))[1].tobytes())
    return folder


def cached_action_samples(people: range, actions: Sequence[str], size: tuple[int, int]) -> Path:
    """The folder of `write_action_samples`, kept in the cache; it may hold further actions of the same people."""
    name = f"actions_{people.start}_{people.stop}_{size[0]}x{size[1]}_{generator_version()}"
    return write_action_samples(cache_folder("synthetic") / name, people, actions, size=size)


def cached_emotion_samples(per_class: int) -> Path:
    """The folder of `write_emotion_samples`, kept in the cache."""
    return write_emotion_samples(cache_folder("synthetic") / f"faces_{per_class}_{generator_version()}", per_class)


def demo_clip() -> Path:
    """The demo clip as an mp4, 640x480 at 25 frames a second; made on first use and kept in the cache."""
    path = cache_folder("synthetic") / f"demo_{generator_version()}.mp4"
    return path if _is_video(path) else write_video(path, render_demo(), DEMO_FPS)


def _is_video(path: Path) -> bool:
    try:
        return next(read_frames(path), None) is not None
    except DataError:
        return False


def _is_image(path: Path) -> bool:
    try:
        return read_image(path) is not None
    except DataError:
        return False
