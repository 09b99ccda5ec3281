"""python -m helpers.live"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from live_tools import count_frames, scene

from helpers.data.paths import REPOSITORY
from helpers.live import __main__ as live_main
from helpers.live.sources import demo_clip


def command_line(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "helpers.live", "--headless", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_command_line(models, face_clip, tmp_path):
    done = command_line(
        "--source",
        face_clip,
        "--output",
        tmp_path / "out.mp4",
        "--csv",
        tmp_path / "out.csv",
        "--max-frames",
        20,
        "--action-model",
        models[0],
        "--emotion-model",
        models[1],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("frames=20 ") and "20/20" in done.stderr, "summary; progress bar"
    assert count_frames(tmp_path / "out.mp4") == 20
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").count("\n") == 21


@pytest.mark.parametrize(
    "change, words, why",
    [
        ({"--source": "missing.mp4"}, "missing.mp4", "no such file"),
        ({"--source": "97"}, "amera 97", "no such camera"),
        ({"--action-model": "nowhere"}, "nowhere", "no such model"),
        ({"--output": __file__ + "/out.mp4"}, "out.mp4", "a folder that cannot be"),
    ],
)
def test_command_line_says_what_is_wrong(change, words, why, models, face_clip, capsys):
    options = {
        "--source": str(face_clip),
        "--action-model": str(models[0]),
        "--emotion-model": str(models[1]),
    } | change
    code = live_main.main(["--headless", *(part for option in options.items() for part in option)])
    output = capsys.readouterr()
    assert code == 2 and output.out == "", why
    assert "error:" in output.err and words in output.err and "Traceback" not in output.err, why


def test_command_line_tells_a_stream_that_breaks_off(models, camera, capsys):
    code = live_main.main(
        [
            "--headless",
            "--source",
            camera.address + "/gone",
            "--action-model",
            str(models[0]),
            "--emotion-model",
            str(models[1]),
        ]
    )
    output = capsys.readouterr()
    assert code == 1 and output.out.startswith("frames=") and "stopped delivering" in output.err


@pytest.mark.parametrize(
    "option, target, why",
    [
        ("--output", "video.mp4", "the source itself"),
        ("--output", "linked.mp4", "its other name"),
        ("--csv", "linked.mp4", "a timeline in its place"),
    ],
)
def test_the_source_is_never_the_output(option, target, why, face_clip, tmp_path, capsys):
    shutil.copy(face_clip, tmp_path / "video.mp4")
    os.link(tmp_path / "video.mp4", tmp_path / "linked.mp4")
    before = (tmp_path / "video.mp4").read_bytes()
    address = f"file://{tmp_path / 'video.mp4'}" if why == "its other name" else str(tmp_path / "video.mp4")
    code = live_main.main(["--headless", "--source", address, option, str(tmp_path / target)])
    assert code == 2 and "is the source" in capsys.readouterr().err, why
    assert (tmp_path / "video.mp4").read_bytes() == before and len(os.listdir(tmp_path)) == 2


def test_an_image_of_the_source_folder_is_never_the_output(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((48, 64, 3), np.uint8))
    before = (tmp_path / "1.png").read_bytes()
    assert live_main.main(["--headless", "--source", str(tmp_path), "--csv", str(tmp_path / "1.png")]) == 2
    assert "is the source" in capsys.readouterr().err and (tmp_path / "1.png").read_bytes() == before


def test_failures_are_named_and_counted_and_end_with_1(tmp_path, models, capsys):
    for number in range(9):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((48, 64, 3), np.uint8))
    for number in (1, 2, 3, 5, 6, 7, 8):
        (tmp_path / f"{number}.png").write_text("no image")
    models = ["--action-model", str(models[0]), "--emotion-model", str(models[1])]
    assert live_main.main(["--headless", "--source", str(tmp_path), *models]) == 1
    output = capsys.readouterr()
    assert output.out.startswith("frames=2 ") and " skipped=7" in output.out
    assert "1.png" in output.err and "6.png" in output.err and "and 2 more" in output.err


def test_help_and_wrong_options_load_nothing():
    code = """if True:
        import sys
        from helpers.live.__main__ import main
        for arguments in (["--help"], ["--max-frames", "0"]):
            try: main(arguments)
            except SystemExit as end: print(end.code)
        heavy = ("numpy", "cv2", "dlib", "tqdm", "keras")
        print([name for name in heavy if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert "--action-model" in done.stdout and "--max-frames: must be 1 or more" in done.stderr
    assert done.stdout.splitlines()[-3:] == ["0", "2", "[]"]


def test_a_whole_run_loads_neither_keras_nor_the_tools_of_notebooks(tmp_path):
    """NumPy, OpenCV, dlib and LiteRT are enough: where a small computer is to run it, nothing else need start."""
    code = f"""if True:
        import sys
        from helpers.live.__main__ import main
        arguments = ["--source", "demo", "--headless", "--max-frames", "3", "--output", {str(tmp_path / "out.mp4")!r}]
        assert main(arguments) == 0
        heavy = ("sklearn", "pandas", "matplotlib", "scipy", "keras", "tensorflow", "h5py", "joblib", "ipywidgets")
        print([name for name in heavy if name in sys.modules])"""
    demo_clip()  # is drawn with matplotlib's photograph, once
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr


def test_without_a_source_camera_0_is_opened_and_named(capsys, monkeypatch):
    """The first camera of the tests' computer, if it has one, is replaced by one that cannot be opened."""
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda *a: real("nothing") if a[0] == 0 else real(*a))
    assert live_main.main(["--headless"]) == 2
    output = capsys.readouterr().err
    assert "opening camera 0" in output and "amera 0" in output.splitlines()[-1]


def test_cameras_are_listed(capsys):
    assert live_main.main(["--list-cameras"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("No camera") or all(
        re.fullmatch(r"\d+: .+, \d+x\d+", line) for line in output.splitlines()
    )


def test_every_photograph_has_its_answer(models, portrait, tmp_path, capsys):
    for name in ("anna.png", "ben.png"):
        cv2.imwrite(str(tmp_path / name), scene(portrait, (20, 60), (380, 60)))
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((100, 100, 3), np.uint8))
    models = ["--action-model", str(models[0]), "--emotion-model", str(models[1])]
    outputs = ["--csv", str(tmp_path / "out" / "a.csv"), "--output", str(tmp_path / "out" / "a.mp4")]
    assert live_main.main(["--headless", "--source", str(tmp_path), *models, *outputs]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("frames=3 ") and [line.split(":")[0] for line in lines[1:]] == [
        "anna.png",
        "ben.png",
        "empty.png",
    ]
    assert lines[1].count("%") == 2 and lines[3] == "empty.png: no face"
    with (tmp_path / "out" / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["anna.png"] * 2 + ["ben.png"] * 2 + ["empty.png"]
    assert all(row["time_s"] == row["face_id"] == "" for row in rows) and rows[0]["emotion"] and rows[0]["w"]
    assert count_frames(tmp_path / "out" / "a.mp4") == 3
