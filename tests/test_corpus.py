"""Hostile and broken inputs through the real command lines: one row an input, a reason a row.

All rows run one after another in one process, as a batch would: what ends that process, or blocks it for half a minute,
fails its own row, and the next row begins in a new one. To add a row write a function that makes the input in a folder
and gives the arguments.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.action.classifier import DEFAULT_ACTION
from helpers.data.videos import read_frames, write_video
from helpers.emotion.classifier import DEFAULT_EMOTION
from helpers.synthetic.faces import render_expression
from helpers.synthetic.scenes import render_action
from tests.data.builders import BAD_NAME, damage_frame, png_header, with_durations

RUNNER = """
import importlib, io, json, signal, sys, traceback
for line in sys.stdin:
    module, *arguments = json.loads(line)
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")]
    real = sys.stdout, sys.stderr
    signal.alarm(30)
    try:
        sys.stdout, sys.stderr = streams
        status = importlib.import_module(module).main(arguments)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        status = "traceback"
        traceback.print_exc()
    finally:
        signal.alarm(0)
        sys.stdout, sys.stderr = real
    for stream in streams:
        stream.flush()
    print(json.dumps([status, *(stream.buffer.getvalue().decode() for stream in streams)]), flush=True)
"""


NO_SECRET = r"\A(?![\s\S]*secret)"  # nowhere in what was said


@dataclass(frozen=True)
class Row:
    """make: writes the input into an empty folder and gives module and arguments. status: the exit code that is right.
    says: patterns that standard output and error together must match, each."""

    make: Callable[[Path], list[str]]
    status: int
    says: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Answer:
    status: int | str
    stdout: str
    stderr: str


# --- What is made ------------------------------------------------------------------------------------------------


def walk(seconds: float = 0.5) -> list[np.ndarray]:
    return render_action("walk", 3, seconds, size=(96, 128))


def face(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, render_expression("happy", 3))[1].tobytes())
    return path


def clip(path: Path, frames: list[np.ndarray] | None = None, fps: float = 25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, walk() if frames is None else frames, fps)


def empty(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def text(path: Path) -> Path:
    path.write_text("a web page under another name")
    return path


def any_size(path: Path, height: int, width: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (width, height))
    for _ in range(2):
        writer.write(np.zeros((height, width, 3), np.uint8))
    writer.release()
    return path


def evaluate(task: str, source: Path, *options: str) -> list[str]:
    return ["helpers.evaluate.__main__", task, str(source), *options]


def live(source: Path | str, *options: str) -> list[str]:
    return ["helpers.live.__main__", "--source", str(source), "--headless", *options]


def bad_videos(root: Path) -> list[str]:
    folder = clip(root / "set/walk/good.mp4").parent
    clip(folder / "b.avi").rename(folder / BAD_NAME)
    empty(folder / "empty.mp4")
    pipe(folder / "pipe.mp4")
    text(folder / "page.mp4")
    any_size(folder / "tower.avi", 1600, 16)
    any_size(folder / "line.avi", 2, 8000)
    return evaluate("action", root / "set")


def bad_images(root: Path) -> list[str]:
    folder = face(root / "set/happy/good.png").parent
    face(folder / "b.jpg").rename(folder / BAD_NAME.replace(".avi", ".jpg"))
    empty(folder / "empty.jpg")
    pipe(folder / "pipe.jpg")
    text(folder / "page.jpg")
    (folder / "cut.jpg").write_bytes(face(folder / "c.jpg").read_bytes()[:300])
    (folder / "c.jpg").unlink()
    (folder / "bomb.png").write_bytes(png_header(50_000, 50_000))
    (folder / "line.png").write_bytes(png_header(3850, 10))
    return evaluate("emotion", root / "set")


def only_bad_images(root: Path) -> list[str]:
    text(empty(root / "set/happy/page.jpg"))
    return evaluate("emotion", root / "set")


def only_bad_videos(root: Path) -> list[str]:
    text(empty(root / "set/walk/page.mp4"))
    return evaluate("action", root / "set")


def pixels_as_a_table(root: Path) -> list[str]:
    (root / "fer2013.csv").write_text("emotion,pixels,Usage\n0,70 80 82,Training\n")
    return evaluate("emotion", root / "fer2013.csv")


def zip_of_zips(root: Path) -> list[str]:
    path = face(root / "happy/a.png")
    for level in range(12):
        inner, path = path, root / f"level{level}" / "set.zip"
        path.parent.mkdir()
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inner, "happy/a.png" if level == 0 else "set.zip")
    return evaluate("emotion", path)


def zip_bomb(root: Path) -> list[str]:
    with zipfile.ZipFile(root / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("happy/a.png", bytes(150_000_000))
    return evaluate("emotion", root / "set.zip")


def damaged_zip(root: Path) -> list[str]:
    with zipfile.ZipFile(root / "set.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(face(root / "a.png"), "happy/a.png")
    data = bytearray((root / "set.zip").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (root / "set.zip").write_bytes(data)
    return evaluate("emotion", root / "set.zip")


def badly_named_video(root: Path) -> list[str]:
    return live(clip(root / "a.avi").rename(root / BAD_NAME))


def unix_socket(root: Path) -> list[str]:
    here = os.getcwd()
    os.chdir(root)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("camera")
    os.chdir(here)
    return live(root / "camera")


def folder_with_a_bomb(root: Path) -> list[str]:
    for number in range(3):
        face(root / f"frames/{number}.png")
    (root / "frames/1.png").write_bytes(png_header(50_000, 50_000))
    pipe(root / "frames/pipe.png")
    return live(root / "frames", "--csv", str(root / "out.csv"))


def slow_motion(root: Path) -> list[str]:
    return live(clip(root / "slow.mp4", walk(2.0), fps=240.12), "--csv", str(root / "out.csv"))


def browser_recording(root: Path) -> list[str]:
    return live(
        with_durations(clip(root / "v.mp4", walk(0.4)), [1, 1, 30, 1, 1, 30, 1, 1, 1, 1]),
        "--csv",
        str(root / "out.csv"),
    )


def badly_named_address(root: Path) -> list[str]:
    return live(f"http://127.0.0.1:9/{BAD_NAME}")


def folder_with_a_bad_name(root: Path) -> list[str]:
    for number in range(3):
        face(root / f"frames/{number}.png")
    face(root / "frames/b.png").rename(root / "frames" / BAD_NAME.replace(".avi", ".png"))
    return live(root / "frames")


def output_of_another_disk(root: Path) -> list[str]:
    return live(clip(root / "a.mp4"), "--output", str(root / BAD_NAME.replace(".avi", ".mp4")))


def cut_off_in_a_class(root: Path) -> list[str]:
    path = clip(root / "set/walk/cut.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return evaluate("action", root / "set")


def hole_in_a_class(root: Path) -> list[str]:
    damage_frame(clip(root / "set/walk/hole.avi"), 5)
    return evaluate("action", root / "set")


def classes_of_another_disk(root: Path) -> list[str]:
    clip(root / "set/walk/a.mp4").parent.rename(root / "set" / BAD_NAME)
    return evaluate("action", root / "set")


def hole(root: Path) -> list[str]:
    return live(damage_frame(clip(root / "hole.avi"), 5))


def frames_without_zeros(root: Path) -> list[str]:
    for number in range(1, 13):
        shade = np.full((48, 64, 3), 20 * number, np.uint8)
        empty(root / f"frames/{number}.png").write_bytes(cv2.imencode(".png", shade)[1].tobytes())
    return live(root / "frames", "--output", str(root / "out.mp4"))


def with_model(root: Path, change: Callable[[Path], None], task: str = "emotion") -> list[str]:
    """Score one good file by a copy of the committed model that `change` has had its way with."""
    committed = DEFAULT_EMOTION if task == "emotion" else DEFAULT_ACTION
    folder = root / "model"
    folder.mkdir()
    for path in [*committed.glob("*.json"), *committed.glob("*.tflite")]:
        shutil.copy(path, folder)
    change(folder)
    good = face(root / "set/happy/a.png") if task == "emotion" else clip(root / "set/walk/a.mp4")
    return evaluate(task, good.parents[1], "--model", str(folder))


def setting(task: str, text: str, *keys: str) -> Callable[[Path], list[str]]:
    """The model's config.json with this JSON text as one value."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        place = config
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = "HERE"
        (folder / "config.json").write_text(json.dumps(config).replace('"HERE"', text))

    return lambda root: with_model(root, change, task)


def file_of_model(name: str, data: bytes) -> Callable[[Path], list[str]]:
    def change(folder: Path) -> None:
        for path in folder.glob(name):
            path.write_bytes(data)

    return lambda root: with_model(root, change)


def byte_order_mark(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def half(folder: Path) -> None:
    (path,) = folder.glob("*.tflite")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pipes(folder: Path) -> None:
    for path in folder.glob("*.tflite"):
        path.unlink()
        os.mkfifo(path)


def train_with_table(table: bytes) -> Callable[[Path], list[str]]:
    def make(root: Path) -> list[str]:
        for name in ("bend/a.mp4", "bend/b.mp4", "walk/c.mp4"):
            clip(root / "set" / name)
        (root / "set/groups.csv").write_bytes(b"label,file,group\n" + table)
        return ["helpers.train.__main__", "action", str(root / "set"), "--output", str(root / "model")]

    return make


def train_on_pipes(root: Path) -> list[str]:
    for label in ("happy", "sad"):
        pipe(root / "set" / label / "a.jpg")
    return ["helpers.train.__main__", "emotion", str(root / "set"), "--output", str(root / "model")]


BAD_TABLES = [
    (b"bend,a.mp4,p\nbend,b.mp4\n", "line 3 has 2 cells", "a row that stops early"),
    (b'bend,"a.mp4,p\nbend,b.mp4,q\n', "row that begins in line 2", "a quote that is never closed"),
    (b"bend,a.mp4,p\0\n", "NUL", "a table that was cut out of a binary file"),
    (b"bend,a.mp4,p\nbend,a.mp4,q\n", "line 3 puts bend/a", "one file in two groups"),
    (b"bend,gone.mp4,p\n", "line 2 names bend/gone", "a row without its file"),
    (b"bend,a.mp4,p\n", r"b\.mp4.*no row", "a file without its row"),
    (b"bend,a.mp4,\n", "line 2 gives bend/a", "no group"),
]

HOSTILE_SETTINGS = [
    *(("emotion", text, "temperature") for text in ("0", "-1", '"1.5"', "null", "NaN", "1e999", "true")),
    *(("emotion", text, "class_prior") for text in ("3", "[1, 2]", '{"angry": -1}')),
    *(("emotion", text, "face", "size") for text in ('"48"', "48.5", "0", "1000000000")),
    ("emotion", '"a face"', "face"),
    *(("action", text, "threshold") for text in ('"0.5"', "null", "NaN", "[0.5]")),
    *(("action", text, "clip", "length") for text in ('"16"', "0", "16.5", "1000000000")),
    *(("action", text, "clip", "window_s") for text in ("-2", "NaN", '"2"')),
    ("action", '"sound"', "clip", "channels"),
]

ROWS = [
    *(Row(train_with_table(table), 2, (rf"error: .*{says}",), reason) for table, says, reason in BAD_TABLES),
    Row(train_on_pipes, 2, ("error: .*no usable file",), "a pipe waits, in training, too"),
    *(Row(setting(*row), 2, (r"error: .*config\.json",), f"{row[-1]} = {row[1]}") for row in HOSTILE_SETTINGS),
    Row(file_of_model("config.json", b"{" * 100_000), 2, (r"error: .*config\.json",), "JSON without end"),
    Row(file_of_model("config.json", b"[]"), 2, (r"error: .*config\.json",), "a list of settings"),
    Row(file_of_model("labels.json", b"\xff\xfe"), 2, (r"error: .*labels\.json",), "labels that are no text"),
    Row(file_of_model("labels.json", b'["a", "b"]'), 2, (r"error: .*labels\.json",), "too few labels"),
    Row(file_of_model("*.tflite", b"no model"), 2, (r"error: .*\.tflite",), "a web page as a model"),
    Row(file_of_model("*.tflite", b""), 2, (r"error: .*\.tflite",), "an empty model"),
    Row(lambda root: with_model(root, half), 2, (r"error: .*\.tflite",), "a model that was cut off"),
    Row(lambda root: with_model(root, pipes), 2, (r"error: .*",), "a pipe as a model"),
    Row(lambda root: with_model(root, byte_order_mark), 0, ("n=1 skipped=0",), "a byte-order mark is no part of JSON"),
    Row(
        bad_videos,
        0,
        (r"n=1 skipped=6\b", r"caf.xe9\.avi: .*UTF-8", r"empty\.mp4: ", r"pipe\.mp4: not a regular", r"page\.mp4: ")
        + (r"tower\.avi: 16 x 1600", r"line\.avi: 8000 x 2"),
        "a batch of videos goes on past every kind that cannot be read",
    ),
    Row(
        bad_images,
        0,
        (r"n=1 skipped=7\b", r"caf.xe9\.jpg: .*UTF-8", r"empty\.jpg: ", r"pipe\.jpg: not a regular", r"page\.jpg: ")
        + (r"cut\.jpg: ", r"bomb\.png: more than", r"line\.png: 3850 x 10"),
        "a batch of images goes on past every kind that cannot be read",
    ),
    Row(hole_in_a_class, 1, (r"n=1 ", r"hole\.avi: .*\b5\b"), "a part of a clip is not scored silently"),
    Row(cut_off_in_a_class, 1, (r"n=1 ", r"cut\.avi: ends after"), "a copy that stopped is not scored silently"),
    Row(classes_of_another_disk, 2, (r"caf.xe9",), "a class folder whose name is not UTF-8"),
    Row(output_of_another_disk, 0, (), "a recording may have any name"),
    Row(only_bad_images, 2, (r"page\.jpg: ", "error: "), "nothing is left to score"),
    Row(only_bad_videos, 2, (r"page\.mp4: ", "error: "), "nothing is left to score"),
    Row(pixels_as_a_table, 2, (r"error: .*fer2013\.csv.*fer2013\.zip",), "FER-2013 as its authors published it"),
    Row(lambda root: evaluate("action", pipe(root / "set.zip")), 2, (r"set\.zip: not a regular",), "a pipe waits"),
    Row(lambda root: evaluate("emotion", pipe(root / "set")), 2, (r"set: a single file",), "a pipe waits"),
    Row(lambda root: evaluate("action", text(root / "set.zip")), 2, (r"set\.zip: not a usable zip",), "a web page"),
    Row(zip_of_zips, 2, ("more than 5 zips",), "zips without end"),
    Row(zip_bomb, 2, (r"set\.zip: .*150,000,000",), "a zip that fills the disk"),
    Row(damaged_zip, 2, (r"set\.zip: not a usable zip",), "damage inside LZMA"),
    Row(badly_named_video, 2, (r"error: .*caf.xe9\.avi: .*UTF-8",), "OpenCV ends the process on such a name"),
    Row(lambda root: live(pipe(root / "camera")), 2, ("error: .*camera.*regular",), "a pipe waits"),
    Row(lambda root: live("/dev/zero"), 2, ("error: .*zero.*regular",), "a device without end"),
    Row(unix_socket, 2, ("error: .*camera.*regular",), "a socket"),
    Row(lambda root: live(empty(root / "a.mp4")), 2, (r"error: .*a\.mp4",), "a copy that never started"),
    Row(lambda root: live(text(root / "a.mp4")), 2, (r"error: .*a\.mp4",), "a web page"),
    Row(lambda root: live(any_size(root / "a.avi", 1600, 16)), 2, (r"a\.avi: 16 x 1600",), "a tower"),
    Row(lambda root: live(any_size(root / "a.avi", 2, 8000)), 2, (r"a\.avi: 8000 x 2",), "a line"),
    Row(folder_with_a_bomb, 1, (r"1\.png.*more than", r"pipe\.png.*regular"), "an image sequence goes on past a bomb"),
    Row(lambda root: live("rtsp://me:sec/secret@127.0.0.1:1/x"), 2, (NO_SECRET, "127.0.0.1:1"), "a / in a password"),
    Row(lambda root: live("me:se@secret@127.0.0.1/x"), 2, (NO_SECRET, "127.0.0.1"), "an address without scheme"),
    Row(lambda root: live("http://127.0.0.1:1/x?user=me&pwd=secret"), 2, (NO_SECRET, "127.0.0.1:1"), "in a query"),
    Row(frames_without_zeros, 0, ("frames=12 ",), "1, 2, 10 and not 1, 10, 2"),
    Row(slow_motion, 0, (), "240.12 frames a second"),
    Row(browser_recording, 0, (), "a variable rate"),
    Row(badly_named_address, 2, ("error: .*caf.xe9",), "an address is given to OpenCV, too"),
    Row(folder_with_a_bad_name, 1, (r"caf.xe9\.png.*UTF-8",), "an image sequence with one such name"),
    Row(hole, 1, (r"frame 5\b|5",), "one frame of twelve cannot be decoded"),
]


def run_all(rows: list[Row], root: Path) -> list[Answer]:
    """Every row's answer; a process that dies or hangs answers for the row that killed it, and the rest goes on."""
    lines = []
    for number, row in enumerate(rows):
        (root / str(number)).mkdir()
        lines.append(json.dumps(row.make(root / str(number))))
    answers: list[Answer] = []
    environment = dict(os.environ, XDG_CACHE_HOME=str(root / "cache"))
    while len(answers) < len(rows):
        ended = subprocess.run(
            [sys.executable, "-c", RUNNER],
            input="\n".join(lines[len(answers) :]),
            capture_output=True,
            text=True,
            env=environment,
        )
        answers += [Answer(*json.loads(line)) for line in ended.stdout.splitlines()]
        if ended.returncode:
            answers.append(Answer(f"ended by {ended.returncode}", "", ended.stderr))
    return answers


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Path, list[Answer]]:
    root = tmp_path_factory.mktemp("corpus")
    return root, run_all(ROWS, root)


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[f"{row.reason} {n}" for n, row in enumerate(ROWS)])
def test_the_command_line_answers(corpus, number):
    row, answer = ROWS[number], corpus[1][number]
    said = answer.stdout + answer.stderr
    assert answer.status == row.status, said
    assert "Traceback" not in said
    for pattern in row.says:
        assert re.search(pattern, said), f"{pattern} is not in\n{said}"


@pytest.mark.parametrize("make, last_s", [(slow_motion, 49 / 240.12), (browser_recording, 67 * 0.04)])
def test_the_times_of_a_video_are_its_own(corpus, make, last_s):
    number = next(number for number, row in enumerate(ROWS) if row.make is make)
    rows = (corpus[0] / str(number) / "out.csv").read_text().splitlines()
    assert float(rows[-1].split(",")[1]) == pytest.approx(last_s, abs=0.01)


def test_frames_are_recorded_in_the_order_of_their_numbers(corpus):
    number = next(number for number, row in enumerate(ROWS) if row.make is frames_without_zeros)
    shades = [frame[-20:].mean() for frame, _ in read_frames(corpus[0] / str(number) / "out.mp4")]
    assert len(shades) == 12 and shades == sorted(shades)


def test_a_process_that_dies_fails_its_own_row_alone(tmp_path):
    """The table's own runner: between two rows that are answered one that ends the process."""
    fine = Row(lambda root: live("--help"), 0, (), "")
    (tmp_path / "deadly.py").write_text("def main(arguments):\n    import os\n    os.abort()\n")
    deadly = Row(lambda root: ["deadly"], 0, (), "")
    here = os.environ.get("PYTHONPATH", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{here}{os.pathsep}{tmp_path}")
        answers = run_all([fine, deadly, fine], tmp_path)
    assert [answer.status for answer in answers] == [2, "ended by -6", 2]
