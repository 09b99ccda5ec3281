"""How fast the live system is, and whether it stays so: both loops on one video, and a long run."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
from scipy.stats import t as students_t

from helpers.action.classifier import DEFAULT_ACTION, ActionClassifier
from helpers.action.clips import FrameSampler
from helpers.emotion.classifier import DEFAULT_EMOTION, EmotionClassifier
from helpers.emotion.faces import FaceFinder, landmark_box
from helpers.errors import DataError
from helpers.live.overlay import draw_overlay
from helpers.live.panel import to_jpeg
from helpers.live.pipeline import Pipeline, StageTimes
from helpers.live.results import UNSURE, FaceResult, FrameResult, LiveSettings
from helpers.live.session import LiveSession
from helpers.live.sources import Source, open_source
from helpers.runtime import load_keras

BLOCK = 24  # frames that this project's loop does in its turn, about a second
BASELINE_FRAMES = 3  # frames that the usual loop does in its turn, spread over the same second


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


def our_frames(pipeline: Pipeline, frames: Iterator) -> Iterator[tuple[float, FrameResult, dict[str, float]]]:
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
            picture = draw_overlay(item[0], result, 1e3 / frame_ms if frame_ms else None)
        with stages("jpeg"):
            to_jpeg(picture)
        frame_ms = (time.perf_counter() - started) * 1e3
        yield frame_ms, result, stages.ms | result.stage_ms


class BaselineLoop:
    """What most tutorials show, with the same networks: for every frame, the detector on the whole
    picture, `model.predict` on the whole window of the action network and on every face.
    """

    def __init__(self, action: ActionClassifier, emotion: EmotionClassifier):
        self.action, self.emotion, self.finder = action, emotion, FaceFinder(detect_width=640)
        self.action_network = load_keras(DEFAULT_ACTION / "action_model.keras")
        self.emotion_network = load_keras(DEFAULT_EMOTION / "emotion_model.keras")
        self.stepper = FrameSampler(action.spec)
        empty = np.zeros((action.spec.size, action.spec.size, 3), np.float32)
        self.window = deque([empty] * action.spec.length, maxlen=action.spec.length)

    def watch(self, frame: np.ndarray, time_s: float) -> None:
        """Take the frame into the window."""
        step = self.stepper.push(frame, time_s)
        if step is not None:
            self.window.append(step)

    def answer(self, frame: np.ndarray, time_s: float) -> FrameResult:
        probabilities = self.action_network.predict(np.stack(self.window)[None], verbose=0)[0]
        faces, preprocessor = self.finder.find(frame), self.emotion.preprocessor
        moods = []
        if faces:
            crops = np.stack([preprocessor.crop(frame, face.landmarks) for face in faces])
            moods = self.emotion_network.predict(preprocessor.normalise(crops), verbose=0)
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


def measure(source: str | Path = "demo", frames: int = 15 * BLOCK, settings: LiveSettings | None = None) -> dict:
    """Both loops over the first `frames` of a film, taking turns; a dict of JSON types for `describe`.

    Raises DataError when the film cannot be read or is shorter than a turn.
    """
    with open_source(source) as film:
        if min(frames, film.count or frames) < BLOCK:
            raise DataError(f"{source}: too short to measure; {BLOCK} frames are needed")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    pipeline = Pipeline.load(settings=settings or LiveSettings())
    usual = BaselineLoop(pipeline.action, pipeline.emotion)
    _warm_up(pipeline, usual, source)
    turns, milliseconds, latencies, frame_ms = [], {}, [], []
    with open_source(source) as ours, open_source(source) as theirs:
        our, their = our_frames(pipeline, iter(ours)), usual.frames(iter(theirs))
        for _ in range(frames // BLOCK):
            done = list(islice(our, BLOCK))
            if len(done) < BLOCK:
                break
            slow = [ms for ms in islice(their, BLOCK) if ms is not None]
            turns.append([float(np.mean([ms for ms, _, _ in done])), float(np.mean(slow))])
            for ms, result, stages in done:
                frame_ms.append(ms)
                latencies.append(result.latency_ms)
                for name, value in stages.items():
                    milliseconds.setdefault(name, []).append(value)
    if not turns:
        raise DataError(f"{source}: shorter than its header says; {BLOCK} frames are needed")
    ours_ms, usual_ms = np.array(turns).T
    return {
        "frames": len(frame_ms),
        "turns": len(turns),
        "fps": _round(1e3 / np.mean(frame_ms)),
        "frame_ms": {"mean": _round(np.mean(frame_ms)), "median": _round(np.median(frame_ms))},
        "latency_ms": {f"p{p}": _round(np.percentile(latencies, p)) for p in (50, 95, 100)},
        "usual_frames": BASELINE_FRAMES * len(turns),
        "usual_ms": {"mean": _round(np.mean(usual_ms)), "median": _round(np.median(usual_ms))},
        "ratio": _ratio(usual_ms, ours_ms),
        "stages": _stage_table(milliseconds),
        "start": measure_start(pipeline, source),
        "machine": {"cores": os.cpu_count(), "load_before": None if load is None else _round(load)},
    }


def _warm_up(pipeline: Pipeline, usual: BaselineLoop, source: str | Path) -> None:
    """The first calls of every part also allocate and compile."""
    with open_source(source) as film:
        for _ in islice(our_frames(pipeline, iter(film)), 3 * BLOCK):
            pass
    pipeline.reset()
    with open_source(source) as film:
        frame, time_s = next(iter(film))
    for _ in range(2):
        usual.answer(frame, time_s)


def _ratio(usual_ms: np.ndarray, ours_ms: np.ndarray) -> dict[str, float]:
    """How many times longer the usual loop took, turn by turn: median, quartiles and ends."""
    ends = np.percentile(usual_ms / ours_ms, (50, 25, 75, 0, 100))
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


def measure_start(pipeline: Pipeline, source: str | Path = "demo", repeats: int = 3) -> dict[str, list[float]]:
    """Seconds from Start to the first picture, the first with an emotion and the first with an action.

    Models are loaded; the source is opened and played at its own speed, as in the panel. An action needs its window
    full (two seconds), so the emotion is the first label. What did not come within eight seconds is left out.
    """
    seconds = {"picture": [], "emotion": [], "action": []}
    for _ in range(repeats):
        session, came = LiveSession(pipeline), {}
        started = time.perf_counter()
        session.start(source)
        while len(came) < len(seconds) and session.running and time.perf_counter() - started < 8:
            latest = session.latest
            if latest is not None:
                shown = {
                    "picture": True,
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


# One sample; shown: pictures since the last one, camera: pictures that the camera gave from the beginning.
SAMPLE = ("minute", "memory_mb", "lag_ms", "lag_max_ms", "shown", "camera")


class LoopedCamera:
    """A film as an endless camera: a new picture by the clock, whether somebody looks or not."""

    def __init__(self, film: Path | str, fps: float = 30.0):
        self.film, self.fps, self.started, self.shown = film, fps, None, 0

    def __call__(self, name: str) -> Source:
        frames = self._frames()
        return Source(name, frames, frames.close, self.fps, is_live=True)

    def _frames(self) -> Iterator[tuple[np.ndarray, float]]:
        self.started = time.monotonic()
        while True:
            with open_source(self.film) as film:
                for frame, _ in film:
                    wait = self.started + self.shown / self.fps - time.monotonic()
                    time.sleep(max(0.0, wait))
                    self.shown += 1
                    yield frame, time.monotonic() - self.started


def soak(minutes: float = 10.0, source: str | Path = "demo", every_s: float = 5.0) -> dict:
    """A live session on an endless camera: memory and lag over time; a dict of JSON types for `describe_soak`.

    lag: from a picture's leaving the camera to its answer on the screen, the median and the largest of `every_s`
    seconds. The first tenth warms up and does not count.
    """
    if 60 * minutes < 8 * every_s:
        raise DataError(f"{minutes:g} minutes are too short: with a sample every {every_s:g} s, take a minute or more")
    process, camera = psutil.Process(), LoopedCamera(source)
    session = LiveSession(Pipeline.load(), opener=camera)
    session.start("looped film")
    # Room for all samples beforehand: a list that grows would itself be the growth of memory that is found.
    samples, lags, number = np.ones((int(60 * minutes / every_s) + 1, len(SAMPLE))), [], -1
    taken, begun = 0, time.monotonic()
    next_sample = begun + every_s
    while (now := time.monotonic()) < begun + 60 * minutes:
        if not session.running:
            raise DataError(f"the run ended early: {session.status}")
        latest = session.latest
        if latest is not None and latest.number != number:
            number = latest.number
            to_jpeg(latest.picture)
            lags.append((time.monotonic() - camera.started - latest.result.time_s) * 1e3)
        if now >= next_sample and lags and taken < len(samples):
            memory = process.memory_info().rss / 2**20
            samples[taken] = (now - begun) / 60, memory, np.median(lags), max(lags), len(lags), camera.shown
            taken, lags, next_sample = taken + 1, [], now + every_s
        time.sleep(0.002)
    stopped = session.stop()
    samples = dict(zip(SAMPLE, samples[:taken].T, strict=True))
    counted = {name: column[taken // 10 :] for name, column in samples.items()}
    return {
        "minutes": minutes,
        "every_s": every_s,
        "stopped": stopped,
        "samples": {name: [_round(value, 3) for value in column] for name, column in samples.items()},
        "memory_mb": trend(counted["minute"], counted["memory_mb"]),
        "lag_ms": trend(counted["minute"], counted["lag_ms"]),
    }


def trend(at: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Slope of `values` (n,) over `at` (n,), n >= 4, by least squares: per unit of `at`, with its 95 % interval.

    Neighbouring samples resemble each other, so they count as fewer: n (1 - r) / (1 + r) with r the correlation of
    neighbouring residuals, where that is positive (Santer et al., 2000).
    """
    slope, start = np.polyfit(at, values, 1)
    rest = values - start - slope * at
    energy = float(rest @ rest)
    r = max(0.0, float(rest[1:] @ rest[:-1]) / energy) if energy > 1e-12 else 0.0
    count = max(len(at) * (1 - r) / (1 + r), 3.0)
    error = np.sqrt(energy / (count - 2) / ((at - at.mean()) ** 2).sum())
    reach = float(students_t.ppf(0.975, count - 2) * error)
    return {
        "median": _round(np.median(values)),
        "slope": _round(slope, 4),
        "standard_error": _round(error, 4),
        "low": _round(slope - reach, 4),
        "high": _round(slope + reach, 4),
        "independent_samples": _round(count, 1),
    }


def describe(measured: dict) -> str:
    """What `measure` found, as text."""
    m, ratio, latency, start = measured, measured["ratio"], measured["latency_ms"], measured["start"]
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
        f"the usual loop: {m['usual_ms']['mean']:.0f} ms a frame (mean over {m['usual_frames']} frames; "
        f"median of turns {m['usual_ms']['median']:.0f})",
        f"ratio: {ratio['median']:.1f} times as fast (median of {m['turns']} turns; quartiles "
        f"{ratio['lower_quartile']:.1f} to {ratio['upper_quartile']:.1f}, "
        f"ends {ratio['least']:.1f} to {ratio['most']:.1f})",
        "after Start, models loaded: "
        + ", ".join(
            f"first {name} {np.median(values):.2f} s" if values else f"no {name}" for name, values in start.items()
        ),
        f"machine: {m['machine']['cores']} cores, load before {m['machine']['load_before']}",
    ]
    return "\n".join(lines)


def describe_soak(measured: dict) -> str:
    """What `soak` found, as text."""
    samples = measured["samples"]
    lines = [
        f"{measured['minutes']:g} minutes, a sample every {measured['every_s']:g} s; "
        f"{sum(samples['shown']):.0f} of {samples['camera'][-1]:.0f} pictures shown, "
        "the others were dropped as late"
    ]
    for name, unit in (("memory_mb", "MB"), ("lag_ms", "ms")):
        row = measured[name]
        noise = (
            "zero lies within the noise"
            if row["low"] <= 0 <= row["high"]
            else "it GROWS"
            if row["low"] > 0
            else "it falls"
        )
        lines.append(
            f"{name.split('_')[0]:<7} median {row['median']:.1f} {unit}, slope {row['slope']:+.3f} {unit} "
            f"a minute (standard error {row['standard_error']:.3f}, 95 % {row['low']:+.3f} to "
            f"{row['high']:+.3f}): {noise}; at most {60 * max(row['high'], 0):.1f} {unit} an hour"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command line; exit code 0, or 2 with a message on stderr when it cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m helpers.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="demo", help="a video file, or demo")
    parser.add_argument("--frames", type=int, default=15 * BLOCK, help=f"of the film, in turns of {BLOCK}")
    parser.add_argument("--soak-minutes", type=float, metavar="M", help="instead: run so long and watch memory and lag")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(argv)
    try:
        if options.soak_minutes:
            measured = soak(options.soak_minutes, options.source)
            print(describe_soak(measured))
        else:
            measured = measure(options.source, options.frames)
            print(describe(measured))
        if options.json:
            options.json.write_text(json.dumps(measured, indent=1) + "\n")
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
