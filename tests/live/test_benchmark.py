"""The benchmark measures what it says: both loops give the same answers, its figures fit. No times are judged."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest

from helpers import benchmark as command
from helpers.data.videos import write_video
from helpers.errors import DataError
from helpers.live import benchmark, cameras, soak
from helpers.live.pipeline import Pipeline
from helpers.live.results import LiveSettings
from helpers.live.sources import open_source


@pytest.mark.parametrize("litert", [False, True], ids=["model.predict", "LiteRT"])
def test_a_baseline_gives_the_same_answers(litert):
    """So that the ratio compares two ways to one result: networks, window, faces."""
    pipeline = Pipeline.load(settings=LiveSettings(smoothing_s=0))
    baseline = benchmark.BaselineLoop(pipeline.action, pipeline.emotion, litert)
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
    latency, ratios = measured["latency_ms"], {name: loop["ratio"] for name, loop in measured["baselines"].items()}
    assert list(ratios) == ["model.predict", "LiteRT"]
    for r in ratios.values():
        assert r["least"] <= r["lower_quartile"] <= r["median"] <= r["upper_quartile"] <= r["most"]
    assert latency["p50"] <= latency["p95"] <= latency["p100"]
    start = measured["start"]
    assert all(first <= label for first, label in zip(start["frame"], start["emotion"], strict=True))
    assert max(start["emotion"]) < min(start["action"]), "an action needs its window, an emotion one frame"
    text = benchmark.describe(measured)
    assert all(f"\n{name} " in f"\n{text}" for name in stages)
    assert all(f"with {name}: " in text and f"{r['median']:.1f} times as fast" in text for name, r in ratios.items())


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
    assert (found["low"] is not None and found["low"] > 0) == grows, why


def test_trend_of_white_noise_has_the_textbook_error():
    """The error is sigma / sqrt(sum of squared distances); the interval holds the truth 95 times of 100."""
    at, noise = np.arange(200.0), np.random.default_rng(0)
    found = [soak.trend(at, 3 * at + noise.normal(0, 5, 200)) for _ in range(300)]
    expected = 5 / np.sqrt(((at - at.mean()) ** 2).sum())
    assert np.median([f["standard_error"] for f in found]) == pytest.approx(expected, rel=0.1)
    assert 0.9 < np.mean([f["low"] <= 3 <= f["high"] for f in found]) <= 1


def test_an_interval_needs_independent_samples():
    """A step of memory in the middle: neighbours are so alike that the 100 samples count as a handful."""
    found = soak.trend(np.arange(100.0), np.repeat([100.0, 101.0], 50))
    assert found["independent_samples"] < 10 and found["low"] is None and found["high"] is None
    assert soak.trend(np.arange(100.0), np.random.default_rng(0).normal(0, 1, 100))["low"] is not None


def test_a_soak_with_a_camera_that_hangs_up_loses_nothing(monkeypatch):
    monkeypatch.setattr(cameras, "RECONNECT_S", 30.0)
    measured = soak.soak(minutes=0.15, every_s=0.5, drop_every_s=3.0)
    assert json.loads(json.dumps(measured)) == measured
    assert measured["left_over"] == []
    connection, recording = measured["connection"], measured["recording"]
    assert connection["hung_up"] >= 1 and connection["hung_up"] - connection["told"] in (0, 1), "the last may be open"
    assert recording["answered"] == recording["in_csv"] >= recording["in_mp4"] > 0.8 * recording["answered"]
    assert recording["in_order"] and recording["damaged"] == 0
    assert recording["video_s"] == pytest.approx(recording["csv_s"], abs=0.2)
    samples = measured["samples"]
    assert len(samples["minute"]) >= 2 and min(samples["memory_mb"]) > 50
    assert all(0 < middle <= most for middle, most in zip(samples["lag_ms"], samples["lag_max_ms"], strict=True))
    assert 0 < sum(samples["shown"]) <= samples["camera"][-1]
    text = soak.describe_soak(measured)
    assert (
        all(f"\n{word} " in text for word in ("memory", "heap", "lag"))
        and f"hung up {connection['hung_up']} times" in text
    )


def test_the_flaky_camera_begins_again_when_its_video_ends_and_hangs_up(tmp_path, monkeypatch):
    monkeypatch.setattr(cameras, "RECONNECT_S", 30.0)
    video = write_video(tmp_path / "video.mp4", [np.full((48, 192, 3), shade, np.uint8) for shade in (20, 200)])
    with soak.FlakyCamera(video, drop_every_s=1.5, fps=50.0) as camera:
        with open_source(camera.address) as viewer:
            frames = [frame for frame, _ in islice(viewer, 100)]
            assert len(viewer.skipped) == 1 and camera.hung_up == 1
        assert camera.sent >= 100
    numbers = [soak.read_stamp(frame) for frame in frames]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0
    assert [frame[:30].mean() > 100 for frame in frames[:4]] in ([False, True] * 2, [True, False] * 2)


def test_a_video_too_narrow_for_a_number_is_refused(tmp_path):
    video = write_video(tmp_path / "video.mp4", [np.zeros((48, 64, 3), np.uint8)])
    with pytest.raises(DataError, match="64 pixels wide"):
        soak.FlakyCamera(video)


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
