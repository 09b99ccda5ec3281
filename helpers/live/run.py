"""A source through the pipeline to its end, and what it came to."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers.errors import SourceError
from helpers.live.overlay import Readout, draw_overlay
from helpers.live.pipeline import Pipeline, StageTimes
from helpers.live.recording import Recorder
from helpers.live.results import FaceResult, FrameResult
from helpers.live.sources import LatestFrames, Source, open_source
from helpers.live.window import open_window


@dataclass
class Summary:
    """What a run over one source came to; `line()` is one line that a machine can read.

    frames; seconds: wall time; latencies_ms: of the last 20,000 frames, from the decoded frame's arrival to its
        result; frames_with_face; media_s: seconds of video;
    action_seconds, emotion_seconds: seconds by label; photographs: (file name, its faces) of images that are no video;
    stage_ms: total milliseconds by stage;
    failures: (what, reason) of damaged frames, unreadable images and interruptions; interrupted: ended by Ctrl-C or the
        notebook's stop button; broken: how a camera, a stream or a video ended before its time, empty when it did not.
    """

    frames: int = 0
    seconds: float = 0.0
    frames_with_face: int = 0
    media_s: float = 0.0
    latencies_ms: deque = field(default_factory=lambda: deque(maxlen=20_000), repr=False)
    action_seconds: dict[str, float] = field(default_factory=dict)
    emotion_seconds: dict[str, float] = field(default_factory=dict)
    photographs: list[tuple[str, tuple[FaceResult, ...]]] = field(default_factory=list, repr=False)
    stage_ms: dict[str, float] = field(default_factory=dict)
    failures: tuple[tuple[str, str], ...] = ()
    interrupted: bool = False
    broken: str = ""

    def add(self, result: FrameResult, stage_ms: dict[str, float]) -> None:
        """Count one frame; stage_ms: the stages outside the pipeline (decode, draw, write)."""
        self.frames += 1
        self.frames_with_face += bool(result.faces)
        self.latencies_ms.append(result.latency_ms)
        if result.time_s is None:
            self.photographs.append((result.photograph, result.faces))
        else:
            self._add_seconds(result, max(0.0, result.time_s - self.media_s))
            self.media_s = max(self.media_s, result.time_s)
        for name, ms in (*result.stage_ms.items(), *stage_ms.items()):
            self.stage_ms[name] = self.stage_ms.get(name, 0.0) + ms

    def _add_seconds(self, result: FrameResult, duration: float) -> None:
        self.action_seconds[result.action] = self.action_seconds.get(result.action, 0.0) + duration
        for face in result.faces:
            self.emotion_seconds[face.emotion] = self.emotion_seconds.get(face.emotion, 0.0) + duration

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
    def skipped(self) -> int:
        return len(self.failures)

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
        if self.photographs:
            return "\n".join([self.line(), *(f"{name}: {_moods(faces)}" for name, faces in self.photographs)])
        lines = [self.line()]
        for title, seconds in (("action", self.action_seconds), ("emotion", self.emotion_seconds)):
            shown = sorted(seconds.items(), key=lambda item: -item[1])
            lines.append(f"{title}: " + (", ".join(f"{label} {s:.1f} s" for label, s in shown) or "none"))
        return "\n".join(lines)


def _moods(faces: tuple[FaceResult, ...]) -> str:
    """Of a photograph, from left to right."""
    from_left = sorted(faces, key=lambda face: face.box[0])
    return ", ".join(f"{face.emotion} {face.confidence:.0%}" for face in from_left) or "no face"


def run(
    source: str | int | Path,
    pipeline: Pipeline | Callable[[], Pipeline],
    *,
    output: Path | str | None = None,
    csv_path: Path | str | None = None,
    max_frames: int | None = None,
    show: bool = False,
    progress: bool = False,
) -> Summary:
    """Run the pipeline over a source to its end (or `max_frames`), as fast as it goes; the summary
    of it.

    pipeline: or what loads it, called when the source and the outputs have been found good.
    output: annotated mp4. csv_path: timeline. show: a window, `q` ends it. progress: a bar on
    stderr. Of a camera or stream the newest frame is taken, of a file every one. Ctrl-C, the
    notebook's stop button and a camera that goes away end it early with the files finished and are
    told in the summary. The source is always given back.
    Raises SourceError, OutputError or another DataError in plain words.
    """
    summary, readout = Summary(), Readout()
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(source))
        recorder = stack.enter_context(Recorder(output, csv_path, fps=frames.fps, source=source))
        pipeline = pipeline() if callable(pipeline) else pipeline
        stack.callback(pipeline.close)
        pipeline.reset(is_live=frames.is_live)
        arriving = arriving_frames(frames, threading.Event(), pipeline.clock, stack=stack)
        bar = stack.enter_context(_progress_bar(frames, max_frames)) if progress else None
        window = stack.enter_context(open_window(frames.name)) if show else None
        started = time.perf_counter()
        try:
            for frame, time_s, waited_ms, stages in _timed(arriving, frames.is_live, pipeline.clock, max_frames):
                result = answer(pipeline, frames, frame, time_s, waited_ms)
                shown, image = readout.steady(result), None
                if output or show:
                    with stages("draw"):
                        image = draw_overlay(frame, shown, None if frames.is_photographs else readout.fps)
                with stages("write"):
                    recorder.write(image, result)
                summary.add(result, stages.ms)
                if bar is not None:
                    bar.update()
                if window and not window(image):
                    break
            summary.broken = frames.shortfall
        except KeyboardInterrupt:
            summary.interrupted = True
        except SourceError as error:
            if not frames.is_live:
                raise
            summary.broken = str(error)
        summary.seconds = time.perf_counter() - started
        summary.failures = tuple((str(what), reason) for what, reason in frames.skipped)
    return summary


def arriving_frames(
    source: Source, stop: threading.Event, clock: Callable[[], float], *, stack: ExitStack
) -> Iterable[tuple[np.ndarray, float, float]]:
    """(frame, time_s, arrival at `clock`): every frame of a video, the newest of a camera."""
    if source.is_live:
        return stack.enter_context(LatestFrames(source, stop, clock))
    return ((frame, time_s, clock()) for frame, time_s in source)


def answer(pipeline: Pipeline, source: Source, frame: np.ndarray, time_s: float, waited_ms: float) -> FrameResult:
    """The result of a frame that has just come from `source`: of a video, or of a photograph by itself."""
    if source.is_photographs:
        return pipeline.photograph(frame, source.photograph, waited_ms)
    return pipeline.step(frame, time_s, waited_ms)


def _timed(
    arriving: Iterable[tuple[np.ndarray, float, float]],
    is_live: bool,
    clock: Callable[[], float],
    max_frames: int | None,
) -> Iterator[tuple[np.ndarray, float, float, StageTimes]]:
    """(frame, time_s, milliseconds since it arrived, a fresh StageTimes that holds how long it took to come)."""
    iterator, number = iter(arriving), 0
    while max_frames is None or number < max_frames:
        stages = StageTimes(clock)
        with stages("wait" if is_live else "decode"):
            item = next(iterator, None)
        if item is None:
            return
        frame, time_s, arrival = item
        yield frame, time_s, (clock() - arrival) * 1e3, stages
        number += 1


def _progress_bar(frames: Source, max_frames: int | None):
    from tqdm import tqdm

    total = min((n for n in (frames.count, max_frames) if n is not None), default=None)
    return tqdm(total=total, unit="frame", desc=frames.name)
