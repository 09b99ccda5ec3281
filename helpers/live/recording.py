"""The live system's answer written down: annotated mp4 and csv timeline."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from helpers.data.outputs import OutputFile
from helpers.errors import OutputError
from helpers.live.results import FrameResult
from helpers.live.sources import DEFAULT_FPS, demo_clip

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

MP4_SUFFIXES = (".mp4", ".m4v", ".mov")
LARGEST_VIDEO = 4096  # pixels; larger frames are reduced, players give up beyond
LONGEST_PAUSE_S = 2.0  # between two frames of a video; it goes on at once after a longer one
MOST_TICKS = 65535  # a second, in MPEG-4

# FFmpeg calls fragmented mp4 so when it is streamed; players want to read that it is an mp4.
STREAM_BRANDS, MP4_BRANDS = b"ftypisml\0\0\2\0ismlpiff", b"ftypiso5\0\0\2\0iso5mp41"


class VideoWriter:
    """An mp4 of constant rate from frames of any rate; a context manager.

    MPEG-4 part 2 ("mp4v"): the one mp4 codec that every OpenCV wheel encodes, at 1 ms a frame (VP9
    takes 126 ms, H.264 is left out for its licence). Players show it, most browsers do not.
    The file consists of fragments of twelve frames: also after a full disk or the death of the process it plays up to
    the last of them. It takes its place when the first is there; an existing file stays until then.

    path, sources: see `outputs.check_output`. fps: frames per second of the file, rounded to what MPEG-4 can say.
    Raises OutputError naming the path when it cannot be written (any more).
    """

    def __init__(self, path: Path | str, fps: float = DEFAULT_FPS, sources: Iterable[str | int | Path] = ()):
        if not str(path).lower().endswith(MP4_SUFFIXES):
            raise OutputError(f"{path}: a recording is an mp4. Use a name that ends in .mp4.")
        self.fps = _writable_rate(fps)
        self.frames = 0
        self._file = OutputFile(path, *sources)
        self._encoder = self._size = self._start_s = None

    @property
    def path(self) -> Path:
        return self._file.path

    def write(self, image: np.ndarray, time_s: float | None = None) -> None:
        """Add a uint8 BGR frame. With its time, it is repeated or left out so that the video runs
        at true speed.

        Frames of another size than the first are fitted into that one.
        """
        if self._encoder is None:
            self._open(image)
        fitted = _fit(image, self._size)
        for _ in range(self._copies(time_s)):
            self._encoder.write(fitted)
            self.frames += 1

    def _open(self, image: np.ndarray) -> None:
        scale = min(1.0, LARGEST_VIDEO / max(image.shape[:2]))
        sides = (max(2, math.ceil(side * scale)) for side in image.shape[1::-1])
        self._size = tuple(side + side % 2 for side in sides)  # the codec wants even ones
        self._encoder = _Encoder(self._file, self.fps, self._size)

    def _copies(self, time_s: float | None) -> int:
        if time_s is None:
            return 1
        if self._start_s is None:
            self._start_s = time_s
        due = round((time_s - self._start_s) * self.fps) + 1 - self.frames
        if not 0 <= due <= LONGEST_PAUSE_S * self.fps:  # another clip or a long pause: carry on from here
            self._start_s = time_s - self.frames / self.fps
            return 1
        return due

    def close(self) -> None:
        """Finish the file; safe to call again. Without any frame no file is left."""
        try:
            if self._encoder is not None:
                self._encoder.close()
        finally:
            self._file.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _writable_rate(fps: float) -> float:
    """The nearest rate that OpenCV can tell MPEG-4: it takes the decimals that matter for the number of ticks."""
    decimals = max(0, math.floor(math.log10(MOST_TICKS / fps))) if 0 < fps < MOST_TICKS else 0
    rounded = round(fps, min(decimals, 3)) if math.isfinite(fps) else 0.0
    return rounded if 0 < rounded < MOST_TICKS else DEFAULT_FPS


class _Encoder:
    """OpenCV's encoder, writing fragmented mp4 into an `OutputFile`.

    OpenCV holds 256 KB of a file back and tells no failed write, so it writes into a pipe that a thread empties into
    the file. Where pipes have no names (Windows) it writes a file of its own that is taken over at the end.
    """

    def __init__(self, file: OutputFile, fps: float, size: tuple[int, int]):
        self._file, self._failure, self._told = file, None, False
        with tempfile.TemporaryDirectory(prefix="har-") as folder:
            self._place, pipe = f"{file.beside}.ismv", None  # this ending makes FFmpeg write fragments
            if hasattr(os, "mkfifo"):
                self._place = os.path.join(folder, "pipe.ismv")
                os.mkfifo(self._place)
                pipe = os.open(self._place, os.O_RDONLY | os.O_NONBLOCK)  # a reader is there: the writer need not wait
                os.set_blocking(pipe, True)
            self._writer = cv2.VideoWriter(self._place, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
        self._thread = None if pipe is None else threading.Thread(target=self._empty, args=(pipe,), name="live-writer")
        if self._thread:
            self._thread.start()
        if not self._writer.isOpened():
            self.close()
            raise OutputError(f"{file.path}: OpenCV cannot write such a video ({size[0]}x{size[1]}, {fps:g} fps).")

    def _empty(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb", buffering=0) as stream:
            while data := stream.read(1 << 20):
                self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            if self._failure is None:
                self._file.write(data.replace(STREAM_BRANDS, MP4_BRANDS))
                if b"moof" in data:
                    self._file.publish()
        except OutputError as error:  # what comes is thrown away: the encoder must not wait
            self._failure = error

    def write(self, image: np.ndarray) -> None:
        self._writer.write(image)
        self._check()

    def _check(self) -> None:
        if self._failure is not None and not self._told:
            self._told = True
            came = "What was recorded before plays." if self._file.published else "Nothing was recorded."
            raise OutputError(f"{self._failure} {came}")

    def close(self) -> None:
        """Safe to call again. Raises OutputError when the end could not be written and nobody was told."""
        self._writer.release()
        if self._thread:
            self._thread.join()
        elif os.path.exists(self._place):
            with open(self._place, "rb") as file:
                self._take(file.read())
            os.unlink(self._place)
        self._check()


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The frame inside size (width, height), not distorted, the rest black."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    if not 1 <= scale < 1.1:  # up to 1.1: only padded to even sides
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    right, bottom = size[0] - width, size[1] - height
    return cv2.copyMakeBorder(
        image,
        bottom // 2,
        bottom - bottom // 2,
        right // 2,
        right - right // 2,
        cv2.BORDER_CONSTANT,
    )


class TimelineWriter:
    """The timeline as csv (`CSV_COLUMNS`): a row per face, or one with empty face columns; a
    context manager. A photograph's frame is its file name; it has no time, its faces have no id.

    Rows reach the file at once; it takes its place with the first. path, sources: see `outputs.check_output`.
    Raises OutputError naming the path.
    """

    def __init__(self, path: Path | str, sources: Iterable[str | int | Path] = ()):
        self._file = OutputFile(path, *sources)
        self._write([CSV_COLUMNS])

    @property
    def path(self) -> Path:
        return self._file.path

    def write(self, result: FrameResult) -> None:
        start = (
            result.photograph or result.frame_index,
            "" if result.time_s is None else f"{result.time_s:.3f}",
            result.action,
            f"{result.action_confidence:.4f}",
        )
        end = f"{result.latency_ms:.2f}"
        faces = [(f.face_id, *f.box, f.emotion, f"{f.confidence:.4f}") for f in result.faces] or [("",) * 7]
        self._write((*start, *face, end) for face in faces)
        self._file.publish()

    def _write(self, rows: Iterable[tuple]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        try:
            self._file.write(text.getvalue().encode())
        except OutputError:
            self.close()
            raise

    def close(self) -> None:
        """Finish the file; safe to call again."""
        self._file.close()

    def __enter__(self) -> TimelineWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Recorder:
    """Video and timeline together, either may be None; a context manager.

    fps: of the source. source: what is recorded and so must not be overwritten.
    """

    def __init__(self, output: Path | str | None, csv_path: Path | str | None, *, fps: float, source: str | int | Path):
        if output and csv_path and os.path.realpath(output) == os.path.realpath(csv_path):
            raise OutputError(f"{output}: video and timeline need two different files.")
        source = demo_clip() if str(source).strip() == "demo" else source
        with ExitStack() as stack:  # when the second cannot be opened, the first is closed
            self.video = stack.enter_context(VideoWriter(output, fps, [source])) if output else None
            self.timeline = stack.enter_context(TimelineWriter(csv_path, [source])) if csv_path else None
            self._open = stack.pop_all()

    def write(self, image: np.ndarray | None, result: FrameResult) -> None:
        if self.timeline:
            self.timeline.write(result)
        if self.video:
            self.video.write(image, result.time_s)

    def close(self) -> None:
        """Finish the files; safe to call again."""
        self._open.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_) -> None:
        self.close()
