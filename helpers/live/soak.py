"""Whether the live system loses nothing in a long run: a panel that records a camera that hangs up again and again."""

from __future__ import annotations

import csv
import http.server
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import psutil
from scipy.stats import t as students_t

from helpers.data.videos import open_video, read_frames
from helpers.errors import DataError, VideoError
from helpers.live.panel import ANOTHER, LivePanel
from helpers.live.pipeline import Pipeline
from helpers.live.recording import LONGEST_PAUSE_S
from helpers.live.session import LiveSession
from helpers.synthetic.samples import demo_clip

# One sample; memory: of the process as the system sees it, heap: what of it is in use (the rest the allocator keeps for
# later); shown: frames that were answered since the last sample, camera: frames that left it from the beginning.
SAMPLE = ("minute", "memory_mb", "heap_mb", "lag_ms", "lag_max_ms", "shown", "camera")
TRENDS = {"memory_mb": "MB", "heap_mb": "MB", "lag_ms": "ms"}
FEWEST_SAMPLES = 10  # independent ones that an interval needs

_CAMERA_FPS = 20.0  # FFmpeg takes MJPEG for 25 a second, so a recording of it need leave no frame out
_STAMP_BITS, _STAMP_SIZE = 24, 8  # a frame's number as black and white squares, pixels each
_REMEMBERED = 4096  # of the times at which frames left


class FlakyCamera:
    """A video as a camera in the network, again and again: MJPEG over HTTP on this machine; a context manager.

    It hangs up `drop_every_s` seconds after a viewer came. Every frame carries its number (`read_stamp`).
    address: for a viewer. sent: frames so far. hung_up: how often.
    Raises DataError when the video cannot be read or is too narrow for a number.
    """

    def __init__(self, video: Path | str, drop_every_s: float = 60.0, fps: float = _CAMERA_FPS):
        self.drop_every_s, self.fps = drop_every_s, fps
        self.sent = self.hung_up = 0
        self._frames, self._left_at = _endless(video), np.zeros(_REMEMBERED)
        if (width := next(self._frames).shape[1]) < _STAMP_BITS * _STAMP_SIZE:
            raise DataError(f"{video}: {width} pixels wide; a soak needs {_STAMP_BITS * _STAMP_SIZE} or more")
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Connection)
        self._server.camera, self._server.daemon_threads = self, False  # closing waits for the viewer's thread
        self.address = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="flaky-camera")

    def left_at(self, number: int) -> float:
        """When one of the newest frames left, by `time.monotonic`."""
        return float(self._left_at[number % _REMEMBERED])

    def jpegs(self) -> Iterator[bytes]:
        """What one viewer gets, each frame at its time."""
        begun = time.monotonic()
        for shown, frame in enumerate(self._frames):
            time.sleep(max(0.0, begun + shown / self.fps - time.monotonic()))
            if time.monotonic() > begun + self.drop_every_s:
                self.hung_up += 1
                return
            _stamp(frame, self.sent)
            jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
            self._left_at[self.sent % _REMEMBERED] = time.monotonic()
            self.sent += 1
            yield jpeg

    def __enter__(self) -> FlakyCamera:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._frames.close()


class _Connection(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for jpeg in self.server.camera.jpegs():
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
        except OSError:  # the viewer hung up
            pass

    def log_message(self, *_) -> None:
        pass


def _endless(video: Path | str) -> Iterator[np.ndarray]:
    """The frames of a video again and again. It stays open: OpenCV opens no file while it waits for a camera."""
    capture, empty = open_video(demo_clip() if video == "demo" else video), True
    try:
        while True:
            ok, frame = capture.read()
            if ok:
                yield frame
            elif empty:
                raise VideoError(f"{video}: no frame can be decoded")
            else:
                capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            empty = not ok
    finally:
        capture.release()


def _stamp(frame: np.ndarray, number: int) -> None:
    for bit in range(_STAMP_BITS):
        frame[-_STAMP_SIZE:, bit * _STAMP_SIZE : (bit + 1) * _STAMP_SIZE] = 255 * (number >> bit & 1)


def read_stamp(image: np.ndarray) -> int:
    """The number that `FlakyCamera` wrote at the foot of a frame, also after the overlay and MPEG-4."""
    squares = image[-_STAMP_SIZE:, : _STAMP_BITS * _STAMP_SIZE].reshape(_STAMP_SIZE, _STAMP_BITS, -1)
    return sum(1 << bit for bit in range(_STAMP_BITS) if squares[:, bit].mean() > 127)


def soak(minutes: float = 20.0, source: str | Path = "demo", every_s: float = 5.0, drop_every_s: float = 60.0) -> dict:
    """The panel on a camera in the network that hangs up again and again, recording: what stays and what is lost.

    A dict of JSON types for `describe_soak`: memory and lag over time, a sample every `every_s` seconds of which the
    first tenth warms up and does not count; how often the camera hung up and how often the session told; the recording
    beside what was answered; threads and files left over.
    lag: from a frame's leaving the camera to its answer on the screen, the median and the largest of a sample.
    Closes another panel. Raises DataError when the run ends early.
    """
    if 60 * minutes < 8 * every_s:
        raise DataError(f"{minutes:g} minutes are too short: with a sample every {every_s:g} s, take a minute or more")
    pipeline, threads = Pipeline.load(), threading.enumerate()
    with (
        tempfile.TemporaryDirectory() as folder,
        FlakyCamera(source, drop_every_s) as camera,
        closing(LivePanel(pipeline, folder)) as panel,
    ):
        opened = {file.path for file in psutil.Process().open_files()}
        samples = _watch(panel, camera, minutes, every_s)
        panel.close()
        recording = _recording(Path(folder), panel.session)
        still_open = {file.path for file in psutil.Process().open_files()} - opened
    counted = {name: column[len(column) // 10 :] for name, column in samples.items()}
    gaps = panel.session.skipped
    return {
        "minutes": minutes,
        "every_s": every_s,
        "drop_every_s": drop_every_s,
        "samples": {name: [_round(value, 3) for value in column] for name, column in samples.items()},
        **{name: trend(counted["minute"], counted[name]) for name in TRENDS},
        "connection": {"hung_up": camera.hung_up, "told": len(gaps), "last": " ".join(gaps[-1]) if gaps else ""},
        "recording": recording,
        "left_over": sorted(still_open) + [t.name for t in threading.enumerate() if t not in threads],
    }


def _watch(panel: LivePanel, camera: FlakyCamera, minutes: float, every_s: float) -> dict[str, np.ndarray]:
    """The samples of a run of the panel, which records from its first frames to its last."""
    process, session = psutil.Process(), panel.session
    panel.source.value, panel.address.value = ANOTHER, camera.address
    panel.begin()
    # Room for all samples beforehand: a list that grows would itself be the growth of memory that is found.
    samples, lags, number, told = np.ones((int(60 * minutes / every_s) + 1, len(SAMPLE))), [], -1, 0
    taken, begun = 0, time.monotonic()
    next_sample = begun + every_s
    while (now := time.monotonic()) < begun + 60 * minutes:
        if not session.running:
            raise DataError(f"the run ended early: {session.status}")
        latest = session.latest
        if latest is not None and latest.number != number:
            number = latest.number
            lags.append((time.monotonic() - camera.left_at(read_stamp(latest.image))) * 1e3)
            panel.record.value = True  # pressed once
        if now >= next_sample and lags and taken < len(samples):
            memory, heap = process.memory_info().rss / 2**20, sum(psutil.heap_info()) / 2**20
            lag = np.median(lags), max(lags)
            samples[taken] = (now - begun) / 60, memory, heap, *lag, number + 1 - told, camera.sent
            taken, told, lags, next_sample = taken + 1, number + 1, [], now + every_s
        time.sleep(0.002)
    session.stop()
    return dict(zip(SAMPLE, samples[:taken].T, strict=True))


def _recording(folder: Path, session: LiveSession) -> dict:
    """What of the frames that were answered is in the files.

    answered: frames since the recording began; in_csv, in_mp4: how many of these are there. The mp4 has a constant
    rate: of two frames within 1/fps it shows one. damaged: frames of the mp4 that cannot be decoded; video_s, csv_s:
    how long both are, without the pauses that a recording leaves out.
    """
    files = sorted(folder.iterdir())
    if [path.suffix for path in files] != [".csv", ".mp4"]:
        raise DataError(f"the recording is not one mp4 and one csv: {session.status}")
    timeline, video = files
    with timeline.open(newline="", encoding="utf-8") as file:
        times = {int(row["frame"]): float(row["time_s"]) for row in csv.DictReader(file)}
    damaged: list[int] = []
    stamps = [read_stamp(frame) for frame, _ in read_frames(video, damaged)]
    gaps = np.diff(list(times.values()))
    capture = cv2.VideoCapture(str(video))
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return {
        "answered": session.latest.result.frame_index + 1 - min(times),
        "in_csv": len(times),
        "in_mp4": len(set(stamps)),
        "in_order": stamps == sorted(stamps),
        "damaged": len(damaged),
        "fps": _round(fps),
        "video_s": _round(len(stamps) / fps, 1),
        "csv_s": _round(gaps[gaps <= LONGEST_PAUSE_S].sum(), 1),
        "megabytes": _round(sum(path.stat().st_size for path in files) / 2**20, 1),
    }


def trend(at: np.ndarray, values: np.ndarray) -> dict[str, float | None]:
    """Slope of `values` (n,) over `at` (n,), n >= 4, by least squares: per unit of `at`, with its 95 % interval.

    Neighbouring samples resemble each other, so they count as fewer: n (1 - r) / (1 + r) with r the correlation of
    neighbouring residuals, where that is positive (Santer et al., 2000). Fewer than ten carry no interval: None.
    """
    slope, start = np.polyfit(at, values, 1)
    rest = values - start - slope * at
    energy = float(rest @ rest)
    r = max(0.0, float(rest[1:] @ rest[:-1]) / energy) if energy > 1e-12 else 0.0
    count = len(at) * (1 - r) / (1 + r)
    found = {
        "median": _round(np.median(values)),
        "slope": _round(slope, 4),
        "independent_samples": _round(count, 1),
        "first": _round(values[0]),
        "last": _round(values[-1]),
    }
    if count < FEWEST_SAMPLES:
        return found | {"standard_error": None, "low": None, "high": None}
    error = np.sqrt(energy / (count - 2) / ((at - at.mean()) ** 2).sum())
    reach = float(students_t.ppf(0.975, count - 2) * error)
    return found | {
        "standard_error": _round(error, 4),
        "low": _round(slope - reach, 4),
        "high": _round(slope + reach, 4),
    }


def describe_soak(measured: dict) -> str:
    """What `soak` found, as text."""
    samples, recording, connection = measured["samples"], measured["recording"], measured["connection"]
    answered, sent = sum(samples["shown"]), samples["camera"][-1]
    lines = [
        f"{measured['minutes']:g} minutes, a sample every {measured['every_s']:g} s; up to the last sample "
        f"{answered:.0f} of {sent:.0f} frames were answered, the other {1 - answered / sent:.0%} dropped as late",
        f"the camera hung up {connection['hung_up']} times, the session reported {connection['told']} interruptions; "
        f"the last: {connection['last'] or 'none'}",
        f"recorded, up to Stop: of {recording['answered']} answered frames {recording['in_csv']} are in the csv and "
        f"{recording['in_mp4']} in the mp4, which has {recording['fps']:g} places a second",
        f"the mp4: {recording['damaged']} damaged frames, in the camera's order: {recording['in_order']}, "
        f"{recording['video_s']:.1f} s of video for {recording['csv_s']:.1f} s in the csv, "
        f"both files {recording['megabytes']:.0f} MB",
        f"left over, threads and open files: {', '.join(measured['left_over']) or 'none'}",
    ]
    for name, unit in TRENDS.items():
        row = measured[name]
        lines.append(
            f"{name.split('_')[0]:<7} median {row['median']:.1f} {unit}, {row['first']:.1f} at first, "
            f"{row['last']:.1f} at the end; slope {row['slope']:+.3f} {unit} a minute{_interval(row)}"
        )
    return "\n".join(lines)


def _interval(row: dict) -> str:
    if row["low"] is None:
        return f" ({row['independent_samples']:.0f} independent samples, too few for an interval)"
    noise = "it GROWS" if row["low"] > 0 else "it falls" if row["high"] < 0 else "zero lies within the noise"
    return f" (95 % {row['low']:+.3f} to {row['high']:+.3f}): {noise}"


def _round(value: float, digits: int = 2) -> float:
    return round(float(value), digits)
