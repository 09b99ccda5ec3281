"""The live system's answer written down: annotated mp4 and csv timeline."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import cv2
import numpy as np

from helpers.errors import OutputError
from helpers.live.results import FrameResult
from helpers.live.sources import DEFAULT_FPS

try:
    import resource
except ImportError:  # Windows: no limit for the size of a file
    resource = None


CSV_COLUMNS = (
    "frame",
    "time_s",
    "action",
    "action_confidence",
    "face_id",
    "x",
    "y",
    "w",
    "h",
    "emotion",
    "emotion_confidence",
    "latency_ms",
)


LARGEST_VIDEO = 4096  # pixels; larger pictures are reduced, players give up beyond


# Recording ends while the file can still be finished: an mp4 without its index, written last, does not play. At least
# what FFmpeg has not written yet and 16 bytes a frame for the index; other programs get a share of a small disk, too.
LEAST_FREE_BYTES, MOST_FREE_BYTES, FREE_SHARE = 2_000_000, 50_000_000, 0.1


def _claim(path: Path | str) -> Path:
    """Make the folder and an empty file, so that a path that cannot be written fails before
    anything else starts.
    """
    path = Path(path).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("wb").close()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}). Choose another place.") from None
    return path


def _no_longer(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written any more ({error.strerror}).")


class VideoWriter:
    """An mp4 of constant rate from frames of any rate; a context manager, playable also after an
    exception.

    MPEG-4 part 2 ("mp4v"): the one mp4 codec that every OpenCV wheel encodes, at 1 ms a frame (VP9
    takes 126 ms, H.264 is left out for its licence). Players show it, most browsers do not.

    path: an existing file is replaced. fps: frames per second of the file.
    Raises OutputError naming the path when it cannot be written or the disk (or the largest size that this process
    may give a file) is nearly full.
    """

    def __init__(self, path: Path | str, fps: float = DEFAULT_FPS):
        self.path, self.fps = _claim(path), fps
        self.frames = 0
        self._writer = self._size = self._start_s = None

    def write(self, picture: np.ndarray, time_s: float | None = None) -> None:
        """Add a uint8 BGR picture. With its time, it is repeated or left out so that the film runs
        at true speed.

        Pictures of another size than the first are fitted into that one.
        """
        self._check_room()
        if self._writer is None:
            self._open(picture)
        fitted = _fit(picture, self._size)
        for _ in range(self._copies(time_s)):
            self._writer.write(fitted)
            self.frames += 1

    def _check_room(self) -> None:
        """Raise before the file cannot grow any more: OpenCV does not tell a failed write."""
        try:
            size, disk = self.path.stat().st_size, shutil.disk_usage(self.path.parent)
        except OSError as error:  # the file or its folder was removed
            raise _no_longer(self.path, error) from None
        room, total = disk.free, disk.total
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0] if resource else -1
        if limit >= 0:
            room, total = min(room, limit - size), min(total, limit)
        least = LEAST_FREE_BYTES + 16 * self.frames
        if room < max(least, min(MOST_FREE_BYTES, FREE_SHARE * total)):
            came = "recording ended. What was recorded plays." if self.frames else "nothing was recorded."
            raise OutputError(f"{self.path}: the disk is nearly full, {came}")

    def _open(self, picture: np.ndarray) -> None:
        scale = min(1.0, LARGEST_VIDEO / max(picture.shape[:2]))
        sides = (max(2, math.ceil(side * scale)) for side in picture.shape[1::-1])
        self._size = tuple(side + side % 2 for side in sides)  # the codec wants even ones
        self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*"mp4v"), self.fps, self._size)
        if not self._writer.isOpened():
            raise OutputError(f"{self.path}: OpenCV cannot write such a video. Use a name that ends in .mp4.")

    def _copies(self, time_s: float | None) -> int:
        if time_s is None:
            return 1
        if self._start_s is None:
            self._start_s = time_s
        due = round((time_s - self._start_s) * self.fps) + 1 - self.frames
        if not 0 <= due <= 2 * self.fps:  # another clip or a long pause: carry on from here
            self._start_s = time_s - self.frames / self.fps
            return 1
        return due

    def close(self) -> None:
        """Finish the file; safe to call again. Without any frame no file is left."""
        if self._writer is not None:
            self._writer.release()
        if self.frames == 0:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture inside size (width, height), not distorted, the rest black."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    scale = min(size[0] / width, size[1] / height)
    if not 1 <= scale < 1.1:  # up to 1.1: only padded to even sides
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    right, bottom = size[0] - width, size[1] - height
    return cv2.copyMakeBorder(
        picture,
        bottom // 2,
        bottom - bottom // 2,
        right // 2,
        right - right // 2,
        cv2.BORDER_CONSTANT,
    )


class TimelineWriter:
    """The timeline as csv (`CSV_COLUMNS`): a row per face, or one with empty face columns; a
    context manager.

    Rows reach the file at once. Raises OutputError naming the path.
    """

    def __init__(self, path: Path | str):
        self.path = _claim(path)
        self._file = self.path.open("w", newline="", encoding="utf-8", buffering=1)
        self._rows = csv.writer(self._file)
        self._write([CSV_COLUMNS])

    def write(self, result: FrameResult) -> None:
        start = (
            result.frame_index,
            f"{result.time_s:.3f}",
            result.action,
            f"{result.action_confidence:.4f}",
        )
        end = f"{result.latency_ms:.2f}"
        faces = [(f.face_id, *f.box, f.emotion, f"{f.confidence:.4f}") for f in result.faces] or [("",) * 7]
        self._write((*start, *face, end) for face in faces)

    def _write(self, rows: Iterable[tuple]) -> None:
        try:
            self._rows.writerows(rows)
        except OSError as error:
            self.close()
            raise _no_longer(self.path, error) from None

    def close(self) -> None:
        """Finish the file; safe to call again."""
        with suppress(OSError):  # the disk is full: what fitted is there
            self._file.close()

    def __enter__(self) -> TimelineWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Recorder:
    """Video and timeline together, either may be None; a context manager."""

    def __init__(self, output: Path | str | None, csv_path: Path | str | None, fps: float):
        with ExitStack() as stack:  # when the second cannot be opened, the first is closed
            self.video = stack.enter_context(VideoWriter(output, fps)) if output else None
            self.timeline = stack.enter_context(TimelineWriter(csv_path)) if csv_path else None
            self._open = stack.pop_all()

    def write(self, picture: np.ndarray | None, result: FrameResult) -> None:
        if self.timeline:
            self.timeline.write(result)
        if self.video:
            self.video.write(picture, result.time_s)

    def close(self) -> None:
        """Finish the files; safe to call again."""
        self._open.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_) -> None:
        self.close()
