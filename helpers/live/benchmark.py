"""How fast the live system is: its loop and two baselines on one video, in turns."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from helpers.action.classifier import DEFAULT_ACTION, ActionClassifier
from helpers.emotion.classifier import DEFAULT_EMOTION, EmotionClassifier
from helpers.emotion.faces import FaceFinder, landmark_box
from helpers.errors import DataError
from helpers.keras_files import load_keras
from helpers.live.overlay import draw_overlay
from helpers.live.panel import to_jpeg
from helpers.live.pipeline import Pipeline, StageTimes
from helpers.live.results import UNSURE, FaceResult, FrameResult, LiveSettings
from helpers.live.session import LiveSession
from helpers.live.sources import open_source

BLOCK = 24  # frames that this project's loop does in its turn, about a second
FRAMES = 15 * BLOCK  # of the video that are measured
BASELINE_FRAMES = 3  # frames that a baseline does in its turn, spread over the same second


# What the stages are booked under, in the order of the table.
STAGES = (
    "decode",
    "clip step",
    "detect",
    "redetect",
    "scan",
    "landmarks",
    "align",
    "emotion",
    "encode",
    "lstm",
    "draw",
    "jpeg",
)


def _our_frames(pipeline: Pipeline, frames: Iterator) -> Iterator[tuple[float, FrameResult, dict[str, float]]]:
    """This project's loop: (milliseconds of the whole frame, its result, milliseconds by stage)."""
    frame_ms = 0.0
    while True:
        started, stages = time.perf_counter(), StageTimes()
        with stages("decode"):
            item = next(frames, None)
        if item is None:
            return
        result = pipeline.step(*item)
        with stages("draw"):
            image = draw_overlay(item[0], result, 1e3 / frame_ms if frame_ms else None)
        with stages("jpeg"):
            to_jpeg(image)
        frame_ms = (time.perf_counter() - started) * 1e3
        yield frame_ms, result, stages.ms | result.stage_ms


class BaselineLoop:
    """The plain loop with the same networks: for every frame, the detector on the whole image, the action network on
    the whole window, the emotion network on every face.

    litert: call the networks as the pipeline does, and not by `model.predict`: what is left is the repeated work.
    """

    def __init__(self, action: ActionClassifier, emotion: EmotionClassifier, litert: bool = False):
        self.action, self.emotion, self.finder = action, emotion, FaceFinder(detect_width=640)
        if litert:
            self.classify, self.feel = lambda steps: action.classify(action.encode(steps)[None]), emotion.predict
        else:
            network = load_keras(DEFAULT_ACTION / "action_model.h5")
            self.classify = lambda steps: network.predict(action.network_input(steps), verbose=0)
            self.feel = partial(load_keras(DEFAULT_EMOTION / "emotion_model.h5").predict, verbose=0)
        self.sampler = action.sampler()
        self.window = deque(maxlen=action.memory)

    def watch(self, frame: np.ndarray, time_s: float) -> None:
        """Take the frame into the window."""
        step = self.sampler.push(frame, time_s)
        if step is not None:
            self.window.append(step)

    def answer(self, frame: np.ndarray, time_s: float) -> FrameResult:
        if not self.window:
            self.watch(frame, time_s)
        padding = [self.window[-1]] * (self.action.spec.length - len(self.window))
        probabilities = self.classify([*self.window, *padding])[0, : len(self.action.labels)]
        faces, preprocessor = self.finder.find(frame), self.emotion.preprocessor
        moods = []
        if faces:
            crops = np.stack([preprocessor.crop(frame, face.landmarks) for face in faces])
            moods = self.feel(preprocessor.normalise(crops))
        seen = tuple(
            FaceResult(
                number,
                landmark_box(face.landmarks),
                face.landmarks,
                self.emotion.labels[mood.argmax()],
                float(mood.max()),
                mood,
            )
            for number, (face, mood) in enumerate(zip(faces, moods, strict=True))
        )
        best = int(probabilities.argmax())
        label, confidence = self.action.labels[best], float(probabilities[best])
        return FrameResult(0, time_s, label, confidence, probabilities, seen, 0.0, {})

    def frames(self, frames: Iterator) -> Iterator[float | None]:
        """Milliseconds of the frames that are answered: `BASELINE_FRAMES` of every `BLOCK`; None of the others."""
        answered = {round((k + 0.5) * BLOCK / BASELINE_FRAMES) for k in range(BASELINE_FRAMES)}
        number = 0
        while True:
            started = time.perf_counter()
            item = next(frames, None)
            if item is None:
                return
            self.watch(*item)
            due = number % BLOCK in answered
            if due:
                draw_overlay(item[0], self.answer(*item))
            yield (time.perf_counter() - started) * 1e3 if due else None
            number += 1


def measure(source: str | Path = "demo", frames: int = FRAMES, settings: LiveSettings | None = None) -> dict:
    """The loops over the first `frames` of a video, taking turns; a dict of JSON types for `describe`.

    Raises DataError when the video cannot be read or is shorter than a turn.
    """
    with open_source(source) as video:
        if min(frames, video.count or frames) < BLOCK:
            raise DataError(f"{source}: too short to measure; {BLOCK} frames are needed")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    pipeline = Pipeline.load(settings=settings or LiveSettings())
    baselines = {
        name: BaselineLoop(pipeline.action, pipeline.emotion, litert=name == "LiteRT")
        for name in ("model.predict", "LiteRT")
    }
    _warm_up(pipeline, baselines.values(), source)
    turns, milliseconds, latencies, frame_ms = [], {}, [], []
    with ExitStack() as stack:
        videos = [iter(stack.enter_context(open_source(source))) for _ in range(1 + len(baselines))]
        our = _our_frames(pipeline, videos[0])
        theirs = [loop.frames(video) for loop, video in zip(baselines.values(), videos[1:], strict=True)]
        for _ in range(frames // BLOCK):
            done = list(islice(our, BLOCK))
            if len(done) < BLOCK:
                break
            slow = [[ms for ms in islice(their, BLOCK) if ms is not None] for their in theirs]
            turns.append([float(np.mean(values)) for values in ([ms for ms, _, _ in done], *slow)])
            for ms, result, stages in done:
                frame_ms.append(ms)
                latencies.append(result.latency_ms)
                for name, value in stages.items():
                    milliseconds.setdefault(name, []).append(value)
    if not turns:
        raise DataError(f"{source}: shorter than its header says; {BLOCK} frames are needed")
    ours_ms, *baselines_ms = np.array(turns).T
    return {
        "frames": len(frame_ms),
        "turns": len(turns),
        "fps": _round(1e3 / np.mean(frame_ms)),
        "frame_ms": {"mean": _round(np.mean(frame_ms)), "median": _round(np.median(frame_ms))},
        "latency_ms": {f"p{p}": _round(np.percentile(latencies, p)) for p in (50, 95, 100)},
        "baseline_frames": BASELINE_FRAMES * len(turns),
        "baselines": {
            name: {"mean_ms": _round(np.mean(ms)), "median_ms": _round(np.median(ms)), "ratio": _ratio(ms, ours_ms)}
            for name, ms in zip(baselines, baselines_ms, strict=True)
        },
        "stages": _stage_table(milliseconds),
        "start": _measure_start(pipeline, source),
        "machine": {"cores": os.cpu_count(), "load_before": None if load is None else _round(load)},
    }


def _warm_up(pipeline: Pipeline, baselines: Iterable[BaselineLoop], source: str | Path) -> None:
    """The first calls of every part also allocate and compile."""
    with open_source(source) as video:
        for _ in islice(_our_frames(pipeline, iter(video)), 3 * BLOCK):
            pass
    pipeline.reset()
    with open_source(source) as video:
        frame, time_s = next(iter(video))
    for baseline in (*baselines, *baselines):
        baseline.answer(frame, time_s)


def _ratio(baseline_ms: np.ndarray, ours_ms: np.ndarray) -> dict[str, float]:
    """How many times longer a baseline took, turn by turn: median, quartiles and ends."""
    ends = np.percentile(baseline_ms / ours_ms, (50, 25, 75, 0, 100))
    return dict(zip(("median", "lower_quartile", "upper_quartile", "least", "most"), map(_round, ends), strict=True))


def _stage_table(milliseconds: dict[str, list[float]]) -> dict[str, dict]:
    total = sum(map(sum, milliseconds.values()))
    return {
        name: {
            "calls": len(values),
            "median_ms": _round(np.median(values), 3),
            "mean_ms": _round(np.mean(values), 3),
            "share": _round(sum(values) / total, 3),
        }
        for name in STAGES
        if (values := milliseconds.get(name))
    }


def _round(value: float, digits: int = 2) -> float:
    return round(float(value), digits)


def _measure_start(pipeline: Pipeline, source: str | Path = "demo", repeats: int = 3) -> dict[str, list[float]]:
    """Seconds from Start to the first frame, the first with an emotion and the first with an action.

    Models are loaded; the source is opened and played at its own speed, as in the panel. An action needs its window
    full (two seconds), so the emotion is the first label. What did not come within eight seconds is left out.
    """
    seconds = {"frame": [], "emotion": [], "action": []}
    for _ in range(repeats):
        session, came = LiveSession(pipeline), {}
        started = time.perf_counter()
        session.start(source)
        while len(came) < len(seconds) and session.running and time.perf_counter() - started < 8:
            latest = session.latest
            if latest is not None:
                shown = {
                    "frame": True,
                    "emotion": any(face.emotion != UNSURE for face in latest.result.faces),
                    "action": latest.result.action != UNSURE,
                }
                for name in seconds:
                    if shown[name]:
                        came.setdefault(name, time.perf_counter() - started)
            time.sleep(0.002)
        session.stop()
        for name, value in came.items():
            seconds[name].append(_round(value, 3))
    return seconds


def describe(measured: dict) -> str:
    """What `measure` found, as text."""
    m, latency, start = measured, measured["latency_ms"], measured["start"]
    lines = [f"{'stage':<11}{'calls':>6}{'median ms':>11}{'mean ms':>9}{'share':>7}"]
    lines += [
        f"{name:<11}{row['calls']:>6}{row['median_ms']:>11.2f}{row['mean_ms']:>9.2f}{row['share']:>7.0%}"
        for name, row in m["stages"].items()
    ]
    lines += [
        "",
        f"this project: {m['fps']:.1f} frames a second, {m['frame_ms']['mean']:.1f} ms a frame "
        f"(mean over {m['frames']} frames; median {m['frame_ms']['median']:.1f})",
        f"from a frame's arrival to its result: median {latency['p50']:.1f} ms, "
        f"95 of 100 within {latency['p95']:.1f} ms, longest {latency['p100']:.1f} ms",
    ]
    for name, loop in m["baselines"].items():
        ratio = loop["ratio"]
        lines += [
            f"the baseline with {name}: {loop['mean_ms']:.0f} ms a frame (mean over {m['baseline_frames']} frames; "
            f"median of turns {loop['median_ms']:.0f})",
            f"ratio: {ratio['median']:.1f} times as fast (median of {m['turns']} turns; quartiles "
            f"{ratio['lower_quartile']:.1f} to {ratio['upper_quartile']:.1f}, "
            f"ends {ratio['least']:.1f} to {ratio['most']:.1f})",
        ]
    lines += [
        "after Start, models loaded: "
        + ", ".join(
            f"first {name} {np.median(values):.2f} s" if values else f"no {name}" for name, values in start.items()
        ),
        f"machine: {m['machine']['cores']} cores, load before {m['machine']['load_before']}",
    ]
    return "\n".join(lines)
