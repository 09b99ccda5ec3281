"""Where frames come from: webcam, video file, network stream, folder of images, the demo clip."""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from helpers.data.files import IMAGE_SUFFIXES
from helpers.data.images import read_image
from helpers.data.videos import FALLBACK_FPS, frame_rate, read_frames, video_frames
from helpers.errors import DataError, SourceError
from helpers.synthetic.samples import demo_clip

DEFAULT_FPS = FALLBACK_FPS  # where a source does not say, or says something no camera does
STALL_S = 5.0  # a stream that shows nothing new for so long is given up


os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{STALL_S:.0f}")  # the same for webcams on Linux


LARGEST_CAMERA = 99  # OpenCV takes larger numbers for the name of a driver
TOLD_SHARE = 0.9  # a film with fewer of the frames that its header tells was cut off


class Source:
    """Frames from one place: iterate for (frame uint8 BGR (H, W, 3), time in seconds), close it or
    use `with`.

    The first frame is read when the source is made, so that a camera or file that gives nothing
    fails there.

    name: for messages. fps: frames per second it claims. count: frames it claims to have, None when
        unknown.
    is_live: frames come when they come (camera, stream) and late ones are worthless. It keeps watch itself: iterating
        raises SourceError when nothing comes for `STALL_S`.
    closed: it was given back.
    skipped: (path, reason) of the images of a folder that could not be read.
    shortfall: how a film ended long before the end that its header tells, in words; empty otherwise.
    """

    def __init__(
        self,
        name: str,
        frames: Iterator,
        release: Callable[[], None],
        fps: float = DEFAULT_FPS,
        count: int | None = None,
        is_live: bool = False,
        skipped: list | None = None,
    ):
        self.name, self.fps, self.count, self.is_live = name, fps, count, is_live
        self.skipped = [] if skipped is None else skipped
        self.closed, self.shortfall = False, ""
        self._frames, self._release = frames, release
        try:
            self._first = next(frames, None)
            if self._first is None:
                raise SourceError(f"{name} gives no picture.")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        given = 0
        if self._first is not None:
            first, self._first = self._first, None
            yield to_bgr(first[0]), first[1]
            given += 1
        for frame, time_s in self._frames:
            yield to_bgr(frame), time_s
            given += 1
        if given + len(self.skipped) < TOLD_SHARE * (self.count or 0):
            self.shortfall = (
                f"{self.name} ended after {given} of {self.count} frames: it was cut off, is damaged, or its header "
                "is wrong."
            )

    def close(self) -> None:
        """Give the camera or file back; safe to call again. Only when no other thread is reading:
        join first.
        """
        if not self.closed:
            self._release()
            self.closed = True

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class LatestFrames:
    """The newest frame of a live source whenever asked: iterate for (frame, time_s, arrival); a context manager.

    A thread of its own reads on and throws away what nobody asked for: at most one frame waits, and a slow model
    drops frames instead of falling behind. arrival: `time.perf_counter()` when the decoded frame was here.
    Iterating ends when `stop` is set, and raises what the source raised. Leaving the `with` sets `stop`, which wakes a
    source that looks at it, and waits for the thread: only then may the source be closed.
    """

    def __init__(self, source: Source, stop: threading.Event):
        self._source, self._stop = source, stop
        self._box, self._failure = queue.Queue(maxsize=1), None
        self._reader = threading.Thread(target=self._read, name="live-reader", daemon=True)

    def _read(self) -> None:
        try:
            for frame, time_s in self._source:
                with suppress(queue.Empty):
                    self._box.get_nowait()
                self._box.put((frame, time_s, time.perf_counter()))
                if self._stop.is_set():
                    return
        except Exception as error:
            self._failure = error

    def __iter__(self) -> Iterator[tuple[np.ndarray, float, float]]:
        while not self._stop.is_set():
            reading = self._reader.is_alive()  # asked first: what it put before it ended is still taken
            try:
                yield self._box.get(timeout=0.05)
            except queue.Empty:
                if reading:
                    continue
                if self._failure:
                    raise self._failure from None
                return

    def __enter__(self) -> LatestFrames:
        self._reader.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._reader.join()


def to_bgr(frame: np.ndarray) -> np.ndarray:
    """Any picture a camera may deliver to uint8 BGR (H, W, 3).

    Gray (H, W) or (H, W, 1), BGR, and BGRA (alpha is dropped); uint8, or uint16 whose full range is
    scaled down.
    """
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[..., 0]
    channels = 1 if frame.ndim == 2 else frame.shape[2] if frame.ndim == 3 else 0
    if frame.size == 0 or channels not in (1, 3, 4) or frame.dtype not in (np.uint8, np.uint16):
        raise SourceError(f"A frame of shape {frame.shape} and type {frame.dtype} is not a gray or colour picture.")
    if frame.dtype == np.uint16:
        frame = cv2.convertScaleAbs(frame, alpha=1 / 257)
    if channels == 1:
        return cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
    return frame if channels == 3 else cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)


def open_source(source: str | int | Path) -> Source:
    """A `Source` from a webcam index (0, "0"), "demo", an RTSP/HTTP address, a video file or a
    folder of images.

    A file and a folder keep their own time (a folder 25 images a second, in the order of the
    names); cameras and streams run by the clock. Raises SourceError (or another DataError) that
    says what to do.
    """
    text = str(source).strip()
    if not text:
        raise SourceError("No source given: use a camera number such as 0, a video file, a folder, an address or demo.")
    if text.isdecimal():
        return _open_camera(int(text))
    if re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://", text):
        return _open_stream(text)
    if text == "demo":
        return _open_file(demo_clip(), name="the demo clip")
    path = Path(os.path.expanduser(text))
    try:
        return _open_folder(path) if path.is_dir() else _open_file(path, path.name)
    except OSError as error:  # not allowed, too long a name
        raise SourceError(f"{text[:200]}: cannot be opened ({error.strerror}).") from None


def without_password(source: str | int | Path) -> str:
    """The source's name for people: an address without its user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", str(source).strip())


def _open_camera(index: int) -> Source:
    capture = cv2.VideoCapture(min(index, LARGEST_CAMERA))
    if not capture.isOpened():
        capture.release()
        raise SourceError(_no_camera(index))
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # old pictures are worthless
    return Source(
        f"camera {index}",
        _read_live(capture, f"camera {index}", _no_camera(index)),
        capture.release,
        frame_rate(capture),
        is_live=True,
    )


def _no_camera(index: int) -> str:
    if sys.platform == "linux" and not Path(f"/dev/video{index}").exists():
        return (
            f"No camera {index} on the computer where Python runs. Plug one in, try another "
            "number, or use a video file or the demo clip."
        )
    return (
        f"Camera {index} gives no picture. Close other programs that use it (video calls, another "
        "notebook), allow Python to use the camera, or try another number."
    )


def _open_stream(address: str) -> Source:
    limit_ms = int(STALL_S * 1000)
    capture = cv2.VideoCapture(
        address,
        cv2.CAP_FFMPEG,
        [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms],
    )
    name = without_password(address)
    nothing = f"{name} gives no video. Check the address, the network and that the camera is on."
    if not capture.isOpened():
        capture.release()
        raise SourceError(nothing)
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:  # a film that lies on a server, not a camera
        return Source(name, video_frames(capture), capture.release, frame_rate(capture), _count(capture))
    return Source(
        name,
        _read_live(capture, name, nothing),
        capture.release,
        frame_rate(capture),
        is_live=True,
    )


def _open_file(path: Path, name: str) -> Source:
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder. Check the spelling; a camera is a number, such as 0.")
    capture = cv2.VideoCapture(str(path))
    fps, count = frame_rate(capture), _count(capture)
    capture.release()
    frames = read_frames(path)
    return Source(name, frames, frames.close, fps, count)


def _open_folder(folder: Path) -> Source:
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise SourceError(f"{folder}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    skipped = []
    frames = _read_images(paths, skipped)
    return Source(f"{folder.name}/", frames, frames.close, DEFAULT_FPS, len(paths), skipped=skipped)


def _read_images(paths: list[Path], skipped: list[tuple[Path, str]]) -> Iterator[tuple[np.ndarray, float]]:
    for number, path in enumerate(paths):
        try:
            yield read_image(path), number / DEFAULT_FPS
        except DataError as error:
            skipped.append((path, str(error)))


def _read_live(capture: cv2.VideoCapture, name: str, nothing: str) -> Iterator[tuple[np.ndarray, float]]:
    """Frames with the time since the first; ends only by an error: `nothing` before the first
    frame, then how it ended.
    """
    start = None
    while True:
        asked = time.monotonic()
        ok, frame = capture.read()
        now = time.monotonic()
        if not ok and start is None:
            raise SourceError(nothing)
        if not ok and now - asked > 0.9 * STALL_S:
            raise SourceError(f"{name} stalled: no picture for {now - asked:.0f} s. Check the camera and the network.")
        if not ok:
            raise SourceError(
                f"{name} stopped delivering pictures: unplugged, switched off, or taken by another program?"
            )
        start = now if start is None else start
        yield frame, now - start


def _count(capture: cv2.VideoCapture) -> int | None:
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e8 else None
