"""python -m helpers.live"""

from __future__ import annotations

import subprocess
import sys

import pytest
from live_tools import count_frames

from helpers.data.paths import REPOSITORY
from helpers.live import __main__ as live_main


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
