"""The live system in a thread of its own, for a panel."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.errors import DataError, OutputError, SourceError
from helpers.live.capture import ClipCapture
from helpers.live.overlay import Readout, draw_banner, draw_overlay
from helpers.live.pipeline import Pipeline
from helpers.live.recording import Recorder
from helpers.live.results import FrameResult
from helpers.live.run import answer, arriving_frames
from helpers.live.sources import DEFAULT_FPS, Source, open_source, without_password


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """The newest answer of a session: annotated image (uint8 BGR), the result with the numbers that stand in it,
    running number; and the frames per second and latency (milliseconds) of the last second, renewed so seldom that a
    person can read them.
    """

    image: np.ndarray
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
    latest: the newest LiveFrame, None before the first. mirror: turn images left to right.
    skipped: what could not be read, see `Source`, of the source that is open or was the last one.
    opener: makes the source, by default `open_source`.
    capture: cuts labelled clips out of what comes, while it is set; what it says is shown at the image's foot.
    stopping: set when the source that is open, or being opened, shall end; an opener or a source
        that waits for a person looks at it.
    """

    def __init__(self, pipeline: Pipeline, opener: Callable[[str], Source] = open_source):
        self.pipeline, self.mirror = pipeline, False
        self.latest: LiveFrame | None = None
        self.skipped: list[tuple[str, str]] = []
        self.capture: ClipCapture | None = None
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
            job.thread = threading.Thread(target=self._work, args=(job,), name="live-session", daemon=True)
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
            recorder = Recorder(output, csv_path, fps=min(job.fps, 30.0), source=job.source)
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
            trouble = self._job.close_recorder()
            self._say(self._job, self.state, trouble or "The recording is saved.")

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
            self._end_capture(job)
            trouble = job.close_recorder(for_good=True)  # before a camera that hangs is waited for
            status = f"{status} {trouble}".strip()
            if state == "failed":
                self._say(job, state, status)
        self._say(job, state, status)

    def _play(self, job: _Job, stack: ExitStack) -> str:
        """Work off the job's source, which `stack` will close; what to say after it."""
        if job.stop.is_set():
            return f"Stopped; {job.name} was not opened."
        self.stopping = job.stop  # jobs play one after the other
        readout = Readout()
        source = stack.enter_context(self._opener(job.source))
        stack.callback(self.pipeline.close)
        self.pipeline.reset(is_live=source.is_live)
        job.name, job.fps, self.skipped = source.name, source.fps, source.skipped
        self._say(job, "running", f"Running: {job.name}.")
        clock = self.pipeline.clock
        arriving = arriving_frames(source, job.stop, clock, stack=stack)
        for number, (frame, time_s, arrival) in enumerate(arriving if source.is_live else self._in_time(arriving, job)):
            if self._paused.is_set():
                continue
            result = answer(self.pipeline, source, frame, time_s, (clock() - arrival) * 1e3)
            shown = readout.steady(result)
            image = draw_overlay(frame, shown, readout.fps, mirror=self.mirror)
            self._record(job, image, result)
            if words := self._cut_clips(job, frame, time_s):
                image = draw_banner(image, words)
            if job is self._job:
                self.latest = LiveFrame(image, shown, readout.fps, readout.latency_ms, number)
        lost = f" {_lost(source)}" if source.skipped else ""
        if job.stop.is_set():
            return f"Stopped; {job.name} is closed.{lost}{job.why}"
        return f"{source.shortfall or f'The end of {job.name}.'}{lost} It is closed."

    def _record(self, job: _Job, image: np.ndarray, result: FrameResult) -> None:
        try:
            with job.recorder_lock:
                if job.recorder is not None:
                    job.recorder.write(image, result)
        except OutputError as error:
            self._say(job, self.state, str(error))
            job.close_recorder()

    def _cut_clips(self, job: _Job, frame: np.ndarray, time_s: float) -> str:
        """What `capture` says about the frame, "" without one."""
        capture = self.capture
        if job.capture is not capture:  # stopped, or another one
            self._end_capture(job)
            job.capture = capture
        if capture is None:
            return ""
        try:
            capture.see(frame, time_s, job.fps)
        except DataError as error:
            self._end_capture(job)
            self.capture = None
            self._say(job, self.state, str(error))
        return capture.says

    def _end_capture(self, job: _Job) -> None:
        capture, job.capture = job.capture, None
        if capture is not None:
            capture.close()

    def _in_time(self, arriving: Iterable, job: _Job) -> Iterator[tuple[np.ndarray, float, float]]:
        """Every frame of a video, not before its time when paced; while paused none is read."""
        start = time.monotonic()
        for frame, time_s, _ in arriving:
            job.stop.wait(max(0.0, start + time_s - time.monotonic()) if job.paced else 0.0)
            while self._paused.is_set() and not job.stop.is_set():
                job.stop.wait(0.05)
                start = time.monotonic() - time_s
            if job.stop.is_set():
                return
            yield frame, time_s, self.pipeline.clock()


def _lost(source: Source) -> str:
    if source.is_live:
        return f"It was interrupted {len(source.skipped)} times; the last: {', '.join(source.skipped[-1])}."
    return f"{len(source.skipped)} of its frames could not be read."


class _Job:
    """One Start: its source, its thread, its way to be stopped and what it records."""

    def __init__(self, source, paced: bool, previous: threading.Thread | None):
        self.source, self.paced, self.previous = source, paced, previous
        self.name, self.fps = without_password(source), DEFAULT_FPS
        self.stop, self.thread, self.why = threading.Event(), None, ""
        self.recorder, self.recorder_lock, self.ended = None, threading.Lock(), False
        self.capture: ClipCapture | None = None

    def attach(self, recorder: Recorder) -> bool:
        """Record from now on; False when the job ended meanwhile (the recorder is closed then)."""
        with self.recorder_lock:
            if self.ended:
                recorder.close()
                return False
            self.recorder = recorder
            return True

    def close_recorder(self, for_good: bool = False) -> str:
        """What went wrong with the end of the recording, "" when nothing did."""
        with self.recorder_lock:
            self.ended = self.ended or for_good
            try:
                if self.recorder is not None:
                    self.recorder.close()
            except OutputError as error:
                return str(error)
            finally:
                self.recorder = None
            return ""


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
