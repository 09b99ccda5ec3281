"""The benchmark measures what it says: both loops give the same answers, its figures fit. No times are judged."""

from __future__ import annotations

import json
import threading
from itertools import islice

import numpy as np
import pytest

from helpers import benchmark as command
from helpers.live import benchmark, soak
from helpers.live.pipeline import Pipeline
from helpers.live.results import LiveSettings
from helpers.live.sources import open_source


def test_both_loops_give_the_same_answers():
    """So that the ratio compares two ways to one result: networks, window, faces."""
    pipeline = Pipeline.load(settings=LiveSettings(smoothing_s=0))
    baseline = benchmark.BaselineLoop(pipeline.action, pipeline.emotion)
    compared = []
    with open_source("demo") as video:
        for number, (frame, time_s) in enumerate(islice(video, 71)):
            result = pipeline.step(frame, time_s)
            baseline.watch(frame, time_s)
            if "lstm" in result.stage_ms and number % 10 == 0:
                answer = baseline.answer(frame, time_s)
                compared.append(answer.action_probabilities)
                assert answer.action_probabilities == pytest.approx(result.action_probabilities, abs=0.03)
                assert [face.emotion for face in answer.faces] == [face.emotion for face in result.faces]
    assert len(compared) > 1 and np.ptp(compared, axis=0).max() > 1e-2, "answers differ, so equality means something"


def test_figures_fit_together_and_go_through_json():
    measured = benchmark.measure("demo", frames=2 * benchmark.BLOCK + 5)
    assert json.loads(json.dumps(measured)) == measured
    assert (measured["frames"], measured["turns"]) == (2 * benchmark.BLOCK, 2), "whole turns only"
    assert measured["baseline_frames"] == 2 * benchmark.BASELINE_FRAMES
    stages = measured["stages"]
    assert tuple(stages) == tuple(name for name in benchmark.STAGES if name != "scan"), "frames of 640 need none"
    assert all(stages[name]["calls"] == measured["frames"] for name in ("decode", "clip step", "draw", "jpeg"))
    assert stages["detect"]["calls"] < stages["redetect"]["calls"] < stages["encode"]["calls"] < measured["frames"]
    assert sum(row["share"] for row in stages.values()) == pytest.approx(1, abs=0.01)
    spent = sum(row["calls"] * row["mean_ms"] for row in stages.values()) / measured["frames"]
    whole = measured["frame_ms"]["mean"]
    assert 0.5 * whole < spent < 2 * whole, "nothing large is left out; at most two threads work at a time"
    assert measured["fps"] == pytest.approx(1e3 / measured["frame_ms"]["mean"], rel=0.01)
    ratio, latency = measured["ratio"], measured["latency_ms"]
    assert ratio["least"] <= ratio["lower_quartile"] <= ratio["median"] <= ratio["upper_quartile"] <= ratio["most"]
    assert latency["p50"] <= latency["p95"] <= latency["p100"]
    start = measured["start"]
    assert all(first <= label for first, label in zip(start["frame"], start["emotion"], strict=True))
    assert max(start["emotion"]) < min(start["action"]), "an action needs its window, an emotion one frame"
    text = benchmark.describe(measured)
    assert all(f"\n{name} " in f"\n{text}" for name in stages) and f"{ratio['median']:.1f} times as fast" in text


@pytest.mark.parametrize(
    "values, grows, why",
    [
        (lambda at, noise: 100 + 0 * at, False, "constant"),
        (lambda at, noise: 100 + noise, False, "noise only"),
        (lambda at, noise: 100 + 2 * at + noise, True, "a leak of 2 MB a minute"),
        (lambda at, noise: 100 + 3 * np.sin(at / 3) + 0.1 * noise, False, "slow waves: neighbours are alike"),
    ],
)
def test_trend_tells_growth_from_noise(values, grows, why):
    at = np.arange(0, 10, 1 / 12)
    found = soak.trend(at, values(at, np.random.default_rng(1).normal(0, 1, len(at))))
    assert (found["low"] > 0) == grows, why
    assert found["low"] <= found["slope"] <= found["high"]


def test_trend_of_white_noise_has_the_textbook_error():
    """The error is sigma / sqrt(sum of squared distances); the interval holds the truth 95 times of 100."""
    at, noise = np.arange(200.0), np.random.default_rng(0)
    found = [soak.trend(at, 3 * at + noise.normal(0, 5, 200)) for _ in range(300)]
    expected = 5 / np.sqrt(((at - at.mean()) ** 2).sum())
    assert np.median([f["standard_error"] for f in found]) == pytest.approx(expected, rel=0.1)
    assert 0.9 < np.mean([f["low"] <= 3 <= f["high"] for f in found]) <= 1


def test_soak_watches_a_camera_that_never_ends_and_gives_it_back():
    measured = soak.soak(minutes=0.1, every_s=0.5)
    assert json.loads(json.dumps(measured)) == measured
    assert measured["stopped"]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("live-")]
    samples = measured["samples"]
    assert len(samples["minute"]) >= 5 and min(samples["memory_mb"]) > 50
    assert all(0 < middle <= most for middle, most in zip(samples["lag_ms"], samples["lag_max_ms"], strict=True))
    assert sum(samples["shown"]) <= samples["camera"][-1]
    assert "memory" in soak.describe_soak(measured) and "lag" in soak.describe_soak(measured)


def test_looped_camera_begins_again_when_the_video_ends(tmp_path):
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "video.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for shade in (20, 200):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    with soak.LoopedCamera(tmp_path / "video.mp4", fps=200)("camera") as camera:
        shown = [(int(frame[0, 0, 0]) > 100, time_s) for frame, time_s in islice(camera, 7)]
    assert [bright for bright, _ in shown] == [False, True] * 3 + [False]
    assert np.all(np.diff([time_s for _, time_s in shown]) > 0) and camera.is_live and camera.closed


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--source", "missing.mp4"], "missing.mp4"),
        (["--frames", "5"], "too short"),
        (["--soak-minutes", "0.1"], "too short"),
    ],
)
def test_command_line_says_what_is_wrong(arguments, words, capsys):
    assert command.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == "" and words in output.err and "Traceback" not in output.err


def test_the_measured_video_is_not_overwritten(gray_clip, capsys):
    before = gray_clip.read_bytes()
    assert command.main(["--source", str(gray_clip), "--json", str(gray_clip)]) == 2
    assert "is the source" in capsys.readouterr().err and gray_clip.read_bytes() == before
