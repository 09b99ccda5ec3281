"""Whether the live system stays as it is in a long run: memory and lag over time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from scipy.stats import t as students_t

from helpers.errors import DataError
from helpers.live.panel import to_jpeg
from helpers.live.pipeline import Pipeline
from helpers.live.session import LiveSession
from helpers.live.sources import Source, open_source

# One sample; shown: frames since the last one, camera: frames that the camera gave from the beginning.
SAMPLE = ("minute", "memory_mb", "lag_ms", "lag_max_ms", "shown", "camera")


class LoopedCamera:
    """A video as an endless camera: a new frame by the clock, whether somebody looks or not."""

    def __init__(self, video: Path | str, fps: float = 30.0):
        self.video, self.fps, self.started, self.shown = video, fps, None, 0

    def __call__(self, name: str) -> Source:
        frames = self._frames()
        return Source(name, frames, frames.close, fps=self.fps, is_live=True)

    def _frames(self) -> Iterator[tuple[np.ndarray, float]]:
        self.started = time.monotonic()
        while True:
            with open_source(self.video) as video:
                for frame, _ in video:
                    wait = self.started + self.shown / self.fps - time.monotonic()
                    time.sleep(max(0.0, wait))
                    self.shown += 1
                    yield frame, time.monotonic() - self.started


def soak(minutes: float = 10.0, source: str | Path = "demo", every_s: float = 5.0) -> dict:
    """A live session on an endless camera: memory and lag over time; a dict of JSON types for `describe_soak`.

    lag: from a frame's leaving the camera to its answer on the screen, the median and the largest of `every_s`
    seconds. The first tenth warms up and does not count.
    """
    if 60 * minutes < 8 * every_s:
        raise DataError(f"{minutes:g} minutes are too short: with a sample every {every_s:g} s, take a minute or more")
    process, camera = psutil.Process(), LoopedCamera(source)
    session = LiveSession(Pipeline.load(), opener=camera)
    session.start("looped video")
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
            to_jpeg(latest.image)
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


def describe_soak(measured: dict) -> str:
    """What `soak` found, as text."""
    samples = measured["samples"]
    lines = [
        f"{measured['minutes']:g} minutes, a sample every {measured['every_s']:g} s; "
        f"{sum(samples['shown']):.0f} of {samples['camera'][-1]:.0f} frames shown, "
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


def _round(value: float, digits: int = 2) -> float:
    return round(float(value), digits)
