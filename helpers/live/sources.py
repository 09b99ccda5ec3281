"""Where frames come from: camera, network stream, video file, folder of images, the demo clip."""

from __future__ import annotations

import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import cv2
import numpy as np

from helpers.data.files import IMAGE_SUFFIXES, has_utf8_name, natural_key, printable
from helpers.data.images import image_size, read_image, why_unusable
from helpers.data.outputs import local_path
from helpers.data.videos import FALLBACK_FPS, frame_rate, open_video, read_frames, video_frames
from helpers.errors import DataError, SourceError
from helpers.live.cameras import Camera
from helpers.synthetic.samples import demo_clip

DEFAULT_FPS = FALLBACK_FPS  # where a source does not say, or says something no camera does
_PHOTOGRAPHS_FPS = 1.0  # a recording shows each for a second
_TOLD_SHARE = 0.9  # a video with less than this share of what its header tells was cut off
_NUMBERED_SHARE = 0.8  # of the numbers from first to last that the images of one video have at least

Frames = Iterator[tuple[np.ndarray, float]]
Skipped = list[tuple[str, str]]


class Source:
    """Frames from one place: iterate for (frame uint8 BGR (H, W, 3), time in seconds); close it or use `with`.

    The first frame is read when the source is made, so that a camera or file that gives nothing fails there.

    name: for messages, without a password. fps: frames per second it claims. count: frames it claims to have, None
        when unknown.
    is_live: frames come when they come (camera, stream) and late ones are worthless. It keeps watch itself: iterating
        raises SourceError when nothing comes any more.
    is_photographs: the images have nothing to do with each other; `photograph` is the file name of the last one.
    skipped: (what, reason) of damaged frames, unreadable images and interruptions so far.
    shortfall: how a video ended long before the end that its header tells, in words; empty otherwise.
    stopping: when set, a live source that waits for a frame ends. closed: it was given back.
    """

    def __init__(
        self,
        name: str,
        frames: Frames,
        release: Callable[[], None],
        *,
        fps: float = DEFAULT_FPS,
        count: int | None = None,
        told_s: float | None = None,
        is_live: bool = False,
        is_photographs: bool = False,
        skipped: Skipped | None = None,
        stopping: threading.Event | None = None,
    ):
        """frames: a generator. release: gives back what it reads from. told_s: duration that the header tells."""
        self.name, self.fps, self.count, self.is_live = name, fps, count, is_live
        self.is_photographs, self.photograph = is_photographs, ""
        self.skipped = [] if skipped is None else skipped
        self.stopping = stopping or threading.Event()
        self.closed, self.shortfall = False, ""
        self._frames, self._release, self._told_s = frames, release, told_s
        try:
            self._first = next(frames, None)
            if self._first is None:
                raise SourceError(f"{name} gives no frame.")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Frames:
        given, time_s = 0, 0.0
        while (item := self._take()) is not None:
            frame, time_s = item
            yield to_bgr(frame), time_s
            given += 1
        self.shortfall = self._shortfall(given, time_s)

    def _take(self) -> tuple[np.ndarray, float] | None:
        if self._first is not None:
            item, self._first = self._first, None
            return item
        return next(self._frames, None)

    def _shortfall(self, given: int, last_s: float) -> str:
        told = self.count or 0
        enough = given + len(self.skipped) >= _TOLD_SHARE * told
        if enough or (self._told_s is not None and last_s + 1 / self.fps >= _TOLD_SHARE * self._told_s):
            return ""
        return f"{self.name} ended after {given} of {told} frames: it was cut off, is damaged, or its header is wrong."

    def close(self) -> None:
        """Give the camera or file back; safe to call again. Only when no other thread is reading: join first."""
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
    drops frames instead of falling behind. arrival: at `clock`, when the decoded frame was here.
    Iterating ends when `stop` is set, and raises what the source raised. Leaving the `with` sets `stop` and
    `source.stopping` and waits for the thread: only then may the source be closed.
    """

    def __init__(self, source: Source, stop: threading.Event, clock: Callable[[], float] = time.perf_counter):
        self._source, self._stop, self._clock = source, stop, clock
        self._box, self._failure = queue.Queue(maxsize=1), None
        self._reader = threading.Thread(target=self._read, name="live-reader", daemon=True)

    def _read(self) -> None:
        try:
            for frame, time_s in self._source:
                with suppress(queue.Empty):
                    self._box.get_nowait()
                self._box.put((frame, time_s, self._clock()))
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
        self._source.stopping.set()
        self._reader.join()


def to_bgr(frame: np.ndarray) -> np.ndarray:
    """Any image that a camera may deliver to uint8 BGR (H, W, 3).

    Gray (H, W) or (H, W, 1), BGR, and BGRA (alpha is dropped); uint8, or uint16 whose full range is scaled down.
    Raises SourceError for anything else, and for a frame too large or too narrow (see `why_unusable`).
    """
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[..., 0]
    channels = 1 if frame.ndim == 2 else frame.shape[2] if frame.ndim == 3 else 0
    if frame.size == 0 or channels not in (1, 3, 4) or frame.dtype not in (np.uint8, np.uint16):
        raise SourceError(f"A frame of shape {frame.shape} and type {frame.dtype} is not a gray or colour image.")
    if why := why_unusable(*frame.shape[1::-1]):
        raise SourceError(f"A frame cannot be used: {why}.")
    if frame.dtype == np.uint16:
        frame = cv2.convertScaleAbs(frame, alpha=1 / 257)
    if channels == 1:
        return cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
    return frame if channels == 3 else cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)


def open_source(source: str | int | Path) -> Source:
    """A `Source` from a camera's number (0, "0", "/dev/video0"), "demo", an RTSP/HTTP address, a video file or a
    folder of images.

    A file keeps its own time, a folder of numbered frames has 25 a second; cameras and streams run by the clock.
    Raises SourceError (or another DataError) that says what to do.
    """
    text = str(source).strip()
    if not text:
        raise SourceError("No source given: use a camera number such as 0, a video file, a folder, an address or demo.")
    device = re.fullmatch(r"(?:/dev/video)?(\d+)", text, re.ASCII)
    if device:
        return _open_camera(int(device[1]))
    if text == "demo":
        return _open_file(demo_clip(), name="the demo clip")
    path = local_path(text)
    if path is None:
        return _open_stream(text)
    try:
        return _open_folder(path) if path.is_dir() else _open_file(path, printable(path.name))
    except OSError as error:  # not allowed, too long a name
        raise SourceError(f"{without_password(text)[:200]}: cannot be opened ({error.strerror}).") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise SourceError(f"{without_password(text)[:200]!r}: is no name of a file ({error}).") from None


def without_password(source: str | int | Path) -> str:
    """The source's name for people: an address without its user, its password and its query.

    A password may hold any character: all before the last @ goes, and everything when an @ follows a question mark.
    What has no scheme (`rtsp://`) is an address, too, when it looks like one and is no file.
    """
    text = printable(str(source).strip())
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text)
    if not scheme and (not re.search(r":.*@|\?.*=", text) or _exists(text)):
        return text
    start = scheme[0] if scheme else ""
    address, _, query = text[len(start) :].partition("?")
    return start + ("…" if "@" in query else address.rpartition("@")[2])


def _exists(text: str) -> bool:
    with suppress(OSError, ValueError):
        return Path(text).expanduser().exists()
    return False


def _open_camera(number: int) -> Source:
    return _live_source(Camera(number, f"camera {number}"))


def _open_stream(address: str) -> Source:
    if not has_utf8_name(address):
        raise SourceError(f"{printable(without_password(address))}: an address has no such characters.")
    stream = Camera(address, without_password(address))
    count = _frame_count(stream.capture)
    if count is None:
        return _live_source(stream)
    skipped: Skipped = []  # a video that lies on a server, not a camera
    frames = _naming_damage(lambda damaged: video_frames(stream.capture, damaged), skipped)
    return Source(stream.name, frames, stream.close, skipped=skipped, **_header(stream.capture))


def _live_source(camera: Camera) -> Source:
    return Source(
        camera.name,
        camera.frames(),
        camera.close,
        fps=frame_rate(camera.capture),
        is_live=True,
        skipped=camera.gaps,
        stopping=camera.stopping,
    )


def _open_file(path: Path, name: str) -> Source:
    if not path.exists():
        raise SourceError(
            f"{without_password(path)}: no such file or folder. Check the spelling; a camera is a number, such as 0."
        )
    capture = open_video(path)
    header = _header(capture)
    capture.release()
    skipped: Skipped = []
    frames = _naming_damage(lambda damaged: read_frames(path, damaged), skipped)
    return Source(name, frames, frames.close, skipped=skipped, **header)


def _naming_damage(read: Callable[[list[int]], Frames], skipped: Skipped) -> Frames:
    damaged: list[int] = []
    with closing(read(damaged)) as frames:
        for item in frames:
            skipped += [(f"frame {number}", "cannot be decoded") for number in damaged[len(skipped) :]]
            yield item


def _header(capture: cv2.VideoCapture) -> dict:
    """What a video's header tells: fps, count, told_s (None where its rate or count cannot be)."""
    fps, count = frame_rate(capture), _frame_count(capture)
    credible = count and fps == capture.get(cv2.CAP_PROP_FPS)
    return {"fps": fps, "count": count, "told_s": count / fps if credible else None}


def _frame_count(capture: cv2.VideoCapture) -> int | None:
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e8 else None


def _open_folder(folder: Path) -> Source:
    entries = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    paths = sorted((path for path in entries if not path.name.startswith(".")), key=natural_key)
    if not paths:
        raise SourceError(f"{printable(folder)}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return _ImageFolder(folder, paths)


class _ImageFolder(Source):
    """Images as the frames of one video, or as photographs that have nothing to do with each other."""

    def __init__(self, folder: Path, paths: list[Path]):
        photographs = not _are_frames_of_one_video(paths)
        fps, skipped = _PHOTOGRAPHS_FPS if photographs else DEFAULT_FPS, []
        frames = self._read(paths, fps, skipped)
        name = f"{printable(folder.resolve().name)}/"
        super().__init__(
            name, frames, frames.close, fps=fps, count=len(paths), is_photographs=photographs, skipped=skipped
        )

    def _read(self, paths: list[Path], fps: float, skipped: Skipped) -> Iterator[tuple[Path, np.ndarray, float]]:
        for number, path in enumerate(paths):
            try:
                yield path, read_image(path), number / fps
            except DataError as error:
                skipped.append((printable(path.name), str(error)))

    def _take(self) -> tuple[np.ndarray, float] | None:
        item = super()._take()
        if item is None:
            return None
        self.photograph = printable(item[0].name) if self.is_photographs else ""
        return item[1:]


def _are_frames_of_one_video(paths: list[Path]) -> bool:
    """Whether the names differ in one number only, with few gaps, and first and last image have the same size.

    paths: in their natural order.
    """
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.stem) for path in paths]
    if len(paths) < 2 or not all(parts) or len({(part[1], part[3]) for part in parts}) > 1:
        return False
    numbers = [int(part[2]) for part in parts]
    step = math.gcd(*np.diff(numbers).tolist()) or 1  # every second or fifth frame of a video is one, too
    if len(paths) < _NUMBERED_SHARE * ((numbers[-1] - numbers[0]) / step + 1):
        return False
    sizes = {size for path in paths[:: max(1, len(paths) // 8)] if (size := image_size(path))}
    return len(sizes) <= 1
