"""The live system: a source through the pipeline, drawn, recorded, to its end or in the background.

    python -m helpers.live --source demo --output out.mp4 --csv out.csv --headless

`run` works a source off and returns a summary; `LiveSession` does it in a thread of its own, for a
panel. The parts are in `sources`, `pipeline`, `overlay` and `recording`; nothing here knows about
notebooks or widgets.
"""

from __future__ import annotations

import argparse
import atexit
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from helpers.datasets import DataError
from helpers.overlay import Readout, draw_overlay
from helpers.pipeline import (
    UNSURE,
    FaceResult,
    FrameResult,
    LiveSettings,
    Pipeline,
    StageTimes,
)
from helpers.recording import CSV_COLUMNS, OutputError, Recorder, TimelineWriter, VideoWriter
from helpers.sources import DEFAULT_FPS, NewestFrames, Source, SourceError, open_source, to_bgr, without_password

# What a notebook needs, from one place.
__all__ = [
    "CSV_COLUMNS",
    "UNSURE",
    "FaceResult",
    "FrameResult",
    "LivePicture",
    "LiveSession",
    "LiveSettings",
    "OutputError",
    "Pipeline",
    "Source",
    "SourceError",
    "Summary",
    "TimelineWriter",
    "VideoWriter",
    "draw_overlay",
    "main",
    "open_source",
    "run",
    "to_bgr",
]


@dataclass
class Summary:
    """What a run over one source came to; `line()` is one line that a machine can read.

    frames; seconds: wall time; latencies_ms: of the last 20,000 frames, from the decoded frame's arrival to its
        result; frames_with_face; media_s: seconds of video;
    action_seconds, emotion_seconds: seconds by label; stage_ms: total milliseconds by stage;
    skipped: images that could not be read; interrupted: ended by Ctrl-C or the notebook's stop
    button; broken: how a camera, a stream or a film ended before its time, empty when it did not.
    """

    frames: int = 0
    seconds: float = 0.0
    frames_with_face: int = 0
    media_s: float = 0.0
    latencies_ms: deque = field(default_factory=lambda: deque(maxlen=20_000), repr=False)
    action_seconds: dict[str, float] = field(default_factory=dict)
    emotion_seconds: dict[str, float] = field(default_factory=dict)
    stage_ms: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    interrupted: bool = False
    broken: str = ""

    def add(self, result: FrameResult, stage_ms: dict[str, float]) -> None:
        """Count one frame; stage_ms: the stages outside the pipeline (decode, draw, write)."""
        duration = max(0.0, result.time_s - self.media_s)
        self.frames += 1
        self.frames_with_face += bool(result.faces)
        self.media_s = max(self.media_s, result.time_s)
        self.latencies_ms.append(result.latency_ms)
        self.action_seconds[result.action] = self.action_seconds.get(result.action, 0.0) + duration
        for face in result.faces:
            self.emotion_seconds[face.emotion] = (
                self.emotion_seconds.get(face.emotion, 0.0) + duration
            )
        for name, ms in (*result.stage_ms.items(), *stage_ms.items()):
            self.stage_ms[name] = self.stage_ms.get(name, 0.0) + ms

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def latency_mean_ms(self) -> float:
        return float(np.mean(self.latencies_ms)) if self.latencies_ms else 0.0

    @property
    def latency_p95_ms(self) -> float:
        return float(np.percentile(self.latencies_ms, 95)) if self.latencies_ms else 0.0

    @property
    def face_share(self) -> float:
        return self.frames_with_face / self.frames if self.frames else 0.0

    def line(self) -> str:
        text = (
            f"frames={self.frames} seconds={self.seconds:.1f} fps={self.fps:.1f} "
            f"latency_ms={self.latency_mean_ms:.1f} latency_p95_ms={self.latency_p95_ms:.1f} "
            f"frames_with_face={self.face_share:.3f}"
        )
        return text + (f" skipped={self.skipped}" if self.skipped else "")

    def __str__(self) -> str:
        lines = [self.line()]
        for title, seconds in (("action", self.action_seconds), ("emotion", self.emotion_seconds)):
            shown = sorted(seconds.items(), key=lambda item: -item[1])
            lines.append(
                f"{title}: " + (", ".join(f"{label} {s:.1f} s" for label, s in shown) or "none")
            )
        return "\n".join(lines)


def run(
    source: str | int | Path,
    pipeline: Pipeline,
    output: Path | str | None = None,
    csv_path: Path | str | None = None,
    max_frames: int | None = None,
    show: bool = False,
    progress: bool = False,
) -> Summary:
    """Run the pipeline over a source to its end (or `max_frames`), as fast as it goes; the summary
    of it.

    output: annotated mp4. csv_path: timeline. show: a window, `q` ends it. progress: a bar on
    stderr. Of a camera or stream the newest frame is taken, of a file every one. Ctrl-C, the
    notebook's stop button and a camera that goes away end it early with the files finished and are
    told in the summary. The source is always given back.
    Raises SourceError, OutputError or another DataError in plain words.
    """
    _refuse_overwriting(source, output, csv_path)
    summary, readout = Summary(), Readout()
    pipeline.reset()
    started = time.perf_counter()
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(source))
        arriving = _arriving(frames, threading.Event(), stack)
        recorder = stack.enter_context(Recorder(output, csv_path, frames.fps))
        bar = stack.enter_context(_progress_bar(frames, max_frames)) if progress else None
        window = stack.enter_context(_window(frames.name)) if show else None
        try:
            for frame, time_s, waited_ms, stages in _timed(arriving, frames.is_live, max_frames):
                result = pipeline.step(frame, time_s, waited_ms)
                shown, picture = readout.steady(result), None
                if output or show:
                    with stages("draw"):
                        picture = draw_overlay(frame, shown, readout.fps)
                with stages("write"):
                    recorder.write(picture, result)
                summary.add(result, stages.ms)
                if bar is not None:
                    bar.update()
                if window and not window(picture):
                    break
            summary.broken = frames.shortfall
        except KeyboardInterrupt:
            summary.interrupted = True
        except SourceError as error:
            if not frames.is_live:
                raise
            summary.broken = str(error)
        summary.skipped = len(frames.skipped)
    summary.seconds = time.perf_counter() - started
    return summary


def _refuse_overwriting(source, output, csv_path) -> None:
    taken = Path(str(source)).resolve()
    for path in (output, csv_path):
        if path and Path(path).resolve() == taken:
            raise OutputError(
                f"{path}: is the source itself and would be overwritten. Choose another name."
            )
    if output and csv_path and Path(output).resolve() == Path(csv_path).resolve():
        raise OutputError(f"{output}: video and timeline need two different files.")


def _arriving(source: Source, stop: threading.Event, stack: ExitStack) -> Iterable[tuple[np.ndarray, float, float]]:
    """(frame, time_s, arrival at `time.perf_counter()`): every frame of a film, the newest of a camera."""
    if source.is_live:
        return stack.enter_context(NewestFrames(source, stop))
    return ((frame, time_s, time.perf_counter()) for frame, time_s in source)


def _timed(
    arriving: Iterable[tuple[np.ndarray, float, float]], is_live: bool, max_frames: int | None
) -> Iterator[tuple[np.ndarray, float, float, StageTimes]]:
    """(frame, time_s, milliseconds since it arrived, a fresh StageTimes that holds how long it took to come)."""
    iterator, number = iter(arriving), 0
    while max_frames is None or number < max_frames:
        stages = StageTimes()
        with stages("wait" if is_live else "decode"):
            item = next(iterator, None)
        if item is None:
            return
        frame, time_s, arrival = item
        yield frame, time_s, (time.perf_counter() - arrival) * 1e3, stages
        number += 1


def _progress_bar(frames: Source, max_frames: int | None):
    from tqdm import tqdm

    total = min((n for n in (frames.count, max_frames) if n is not None), default=None)
    return tqdm(total=total, unit="frame", desc=frames.name)


def has_window() -> bool:
    """Whether this OpenCV and this computer can open a window. A process of its own tries it: where there is no
    screen, the window library ends the process that asks.
    """
    probe = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
    try:
        return subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def _window(title: str):
    """A function that shows a picture and is false once `q` was pressed or the window was
    closed.
    """

    def show(picture: np.ndarray) -> bool:
        cv2.imshow(title, picture)
        key = cv2.waitKey(1) & 0xFF
        return key != ord("q") and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1

    try:
        yield show
    finally:
        cv2.destroyAllWindows()


# --- in the background ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LivePicture:
    """The newest answer of a session: annotated picture (uint8 BGR), result, running number; and the frames per
    second and latency (milliseconds) of the last second, renewed so seldom that a person can read them.
    """

    picture: np.ndarray
    result: FrameResult
    fps: float
    latency_ms: float
    number: int


class LiveSession:
    """Runs a pipeline over a source in the background, one source at a time, and always gives the
    source back.

    One thread owns the source: it opens, reads and closes it. For a camera a second thread only
    keeps the newest frame, so that a slow model drops frames instead of falling behind. Every error
    ends up in `status`, in plain words; no method raises or waits for a model or a camera, except
    `stop(wait=True)`.
    A result's latency counts from the arrival of the decoded frame: waiting for the model and all its stages; not
    the camera and the network before, not drawing and the browser after.

    status: a sentence for people. state: "ready", "starting", "running", "paused", "stopped" or
        "failed".
    latest: the newest LivePicture, None before the first. mirror: turn pictures left to right.
    opener: makes the source, by default `open_source`.
    stopping: set when the source that is open, or being opened, shall end; an opener or a source
        that waits for a person looks at it.
    """

    def __init__(self, pipeline: Pipeline, opener: Callable[[str], Source] = open_source):
        self.pipeline, self.mirror = pipeline, False
        self.latest: LivePicture | None = None
        self.state, self.status = "ready", "Ready. Press Start."
        self._opener, self._lock, self._job = opener, threading.Lock(), None
        self._paused, self.stopping = threading.Event(), threading.Event()
        _sessions.add(self)

    @property
    def running(self) -> bool:
        """Whether a source is open, being opened or being closed."""
        return self._job is not None and self._job.thread.is_alive()

    @property
    def recording(self) -> bool:
        return self._job is not None and self._job.recorder is not None

    def start(self, source: str | int | Path, paced: bool = True) -> bool:
        """Begin with `source`. False, and nothing happens, when it is running already.

        paced: play a file by its own clock instead of as fast as it goes.
        """
        with self._lock:
            if self.running and not self._job.stop.is_set():
                return False
            self._paused.clear()
            job = _Job(source, paced, previous=self._job.thread if self._job else None)
            job.thread = threading.Thread(
                target=self._work, args=(job,), name="live-session", daemon=True
            )
            self._job = job
            self._say(job, "starting", f"Opening {job.name} …")
            job.thread.start()
            return True

    def stop(self, wait: bool = True, timeout_s: float = 15.0, why: str = "") -> bool:
        """End; with `wait`, return when the source is given back. False when that took longer than
        `timeout_s`. why: a sentence for `status`, when it was not the person who stopped it.
        """
        job = self._job
        if job is None:
            return True
        job.why = f" {why}" if why else ""
        job.stop.set()
        if wait and job.thread is not threading.current_thread():
            job.thread.join(timeout_s)
        return not job.thread.is_alive()

    def pause(self, on: bool = True) -> None:
        """Hold the answer. A file waits; a camera goes on and what it sees meanwhile is not looked
        at.
        """
        job = self._job
        if job is None or not self.running:
            return
        (self._paused.set if on else self._paused.clear)()
        self._say(job, *("paused", "Paused.") if on else ("running", f"Running: {job.name}."))

    def record(self, output: Path | str | None, csv_path: Path | str | None = None) -> bool:
        """Write what follows to an annotated mp4 and a csv, until `stop_recording` or the end.
        False when not possible.
        """
        job = self._job
        if job is None or not self.running or job.stop.is_set():
            self.status = "Nothing to record: press Start first."
            return False
        try:
            recorder = Recorder(output, csv_path, min(job.fps, 30.0))
        except DataError as error:
            self._say(job, self.state, str(error))
            return False
        job.close_recorder()
        if not job.attach(recorder):
            return False
        self._say(job, self.state, f"Recording {output or csv_path}.")
        return True

    def stop_recording(self) -> None:
        """Finish the files; does nothing when not recording."""
        if self.recording:
            self._job.close_recorder()
            self._say(self._job, self.state, "The recording is saved.")

    def _say(self, job: _Job, state: str, status: str) -> None:
        if job is self._job:  # an old job that is still closing has no say
            self.state, self.status = state, status

    def _work(self, job: _Job) -> None:
        if job.previous is not None:
            job.previous.join()
            job.previous = None
        with ExitStack() as stack:  # at its end the reader is joined and the source closed
            try:
                state, status = "stopped", self._play(job, stack)
            except Exception as error:  # also a model's bug, too little memory: the panel stays usable
                unexpected = "" if isinstance(error, DataError) else f"Unexpected {type(error).__name__}: "
                state, status = "failed", f"{unexpected}{error}"
                if isinstance(error, SourceError) and job.stop.is_set():  # nobody waits for it any more
                    state, status = "stopped", f"Stopped; {job.name} is closed.{job.why}"
            job.stop.set()
            job.close_recorder(for_good=True)  # before a camera that hangs is waited for
            if state == "failed":
                self._say(job, state, status)
        self._say(job, state, status)

    def _play(self, job: _Job, stack: ExitStack) -> str:
        """Work off the job's source, which `stack` will close; what to say after it."""
        if job.stop.is_set():
            return f"Stopped; {job.name} was not opened."
        self.stopping = job.stop  # jobs play one after the other
        readout = Readout()
        self.pipeline.reset()
        source = stack.enter_context(self._opener(job.source))
        job.name, job.fps = source.name, source.fps
        self._say(job, "running", f"Running: {job.name}.")
        arriving = _arriving(source, job.stop, stack)
        for number, (frame, time_s, arrival) in enumerate(arriving if source.is_live else self._in_time(arriving, job)):
            if self._paused.is_set():
                continue
            result = self.pipeline.step(frame, time_s, (time.perf_counter() - arrival) * 1e3)
            picture = draw_overlay(frame, readout.steady(result), readout.fps, self.mirror)
            self._record(job, picture, result)
            if job is self._job:
                self.latest = LivePicture(picture, result, readout.fps, readout.latency_ms, number)
        if job.stop.is_set():
            return f"Stopped; {job.name} is closed.{job.why}"
        return f"{source.shortfall or f'The end of {job.name}.'} It is closed."

    def _record(self, job: _Job, picture: np.ndarray, result: FrameResult) -> None:
        try:
            with job.recorder_lock:
                if job.recorder is not None:
                    job.recorder.write(picture, result)
        except OutputError as error:
            job.close_recorder()
            self._say(job, self.state, str(error))

    def _in_time(self, arriving: Iterable, job: _Job) -> Iterator[tuple[np.ndarray, float, float]]:
        """Every frame of a film, not before its time when paced; while paused none is read."""
        start = time.monotonic()
        for frame, time_s, _ in arriving:
            job.stop.wait(max(0.0, start + time_s - time.monotonic()) if job.paced else 0.0)
            while self._paused.is_set() and not job.stop.is_set():
                job.stop.wait(0.05)
                start = time.monotonic() - time_s
            if job.stop.is_set():
                return
            yield frame, time_s, time.perf_counter()


class _Job:
    """One Start: its source, its thread, its way to be stopped and what it records."""

    def __init__(self, source, paced: bool, previous: threading.Thread | None):
        self.source, self.paced, self.previous = source, paced, previous
        self.name, self.fps = without_password(source), DEFAULT_FPS
        self.stop, self.thread, self.why = threading.Event(), None, ""
        self.recorder, self.recorder_lock, self.ended = None, threading.Lock(), False

    def attach(self, recorder: Recorder) -> bool:
        """Record from now on; False when the job ended meanwhile (the recorder is closed then)."""
        with self.recorder_lock:
            if self.ended:
                recorder.close()
                return False
            self.recorder = recorder
            return True

    def close_recorder(self, for_good: bool = False) -> None:
        with self.recorder_lock:
            self.ended = self.ended or for_good
            if self.recorder is not None:
                self.recorder.close()
                self.recorder = None


_sessions: weakref.WeakSet[LiveSession] = weakref.WeakSet()


@atexit.register
def _stop_all_sessions() -> None:
    """At the end of the process (kernel shutdown, restart): finish files and give every camera
    back. Jupyter kills a kernel that takes longer than 5 seconds.
    """
    sessions, end = list(_sessions), time.monotonic() + 3.0
    for session in sessions:
        session.stop(wait=False)
    for session in sessions:
        session.stop(timeout_s=max(0.0, end - time.monotonic()))


# --- command line ---------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """The command line. Its exit code, with a message on stderr where it is not 0:

    0 done; 1 a camera, stream or cut-off file ended before its time, what came before is written; 2 input or output
    that cannot be used; 130 ended by Ctrl-C or `kill`, what came before is written.
    """
    options = _parser().parse_args(argv)
    show = not options.headless
    if show and not has_window():
        show = False
        print(
            "No window can be opened here (headless OpenCV or no screen): running without.",
            file=sys.stderr,
        )
    try:
        pipeline = Pipeline.load(options.action_model, options.emotion_model)
        summary = run(
            options.source,
            pipeline,
            options.output,
            options.csv,
            options.max_frames,
            show,
            progress=True,
        )
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Ended before the first picture.", file=sys.stderr)
        return 130
    print(summary)
    if summary.broken:
        print(f"error: {summary.broken}", file=sys.stderr)
        return 1
    return 130 if summary.interrupted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.live", description="Actions and facial emotions in a video."
    )
    parser.add_argument(
        "--source",
        default="demo",
        help="webcam number, video file, folder of images, address, or demo",
    )
    parser.add_argument("--output", type=Path, metavar="OUT.mp4", help="annotated video")
    parser.add_argument(
        "--csv", type=Path, metavar="OUT.csv", help="timeline, a row per frame and face"
    )
    parser.add_argument("--headless", action="store_true", help="no window (in a window, q ends)")
    parser.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--action-model", type=Path, metavar="DIR", help="folder of an action model"
    )
    parser.add_argument(
        "--emotion-model", type=Path, metavar="DIR", help="folder or file of an emotion model"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends it as Ctrl-C does: files are finished
    sys.exit(main())
