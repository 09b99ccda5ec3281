"""Every way a camera, video, disk, model or kernel fails, for real; then all is given back and Start works again."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from live_tools import (
    assert_given_back,
    assert_starts_again,
    count_frames,
    idle_pipeline,
    ip_camera,
    noise,
    session_for,
    wait_for,
    write_video,
)

from helpers import errors as errors_module
from helpers.data.paths import REPOSITORY
from helpers.live import cameras, sources
from helpers.live import pipeline as pipeline_module
from helpers.live import run as live_run


@pytest.fixture
def camera():
    with ip_camera() as camera:
        yield camera


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two seconds of changing gray."""
    frames = [np.full((120, 160, 3), 5 * i, np.uint8) for i in range(50)]
    return write_video(tmp_path_factory.mktemp("clips") / "gray.mp4", frames)


# --- sources


@dataclass
class Place:
    """What a fault needs to be made: a folder, a network camera, pytest's way to replace things, what undoes it."""

    folder: Path
    camera: object
    monkeypatch: pytest.MonkeyPatch
    undo: ExitStack


def camera_that_cannot_be_opened(place: Place) -> str:
    """A device that is no camera: opening it fails where a busy camera does (there EBUSY, here ENOTTY)."""
    node = Path("/dev/video87")
    try:
        os.mknod(node, 0o666 | 0o020000, os.makedev(1, 3))
    except (OSError, AttributeError) as error:
        pytest.skip(f"making a device needs Linux and root ({error})")
    place.undo.callback(node.unlink)
    return "87"


def camera_that_shows_nothing(place: Place) -> str:
    """Busy cameras of Windows and macOS open and give no image. Linux has no such device without a driver in the
    kernel, so an object that behaves so takes the place of OpenCV's.
    """

    class Nothing:
        def isOpened(self):
            return True

        def read(self):
            return False, None

        def get(self, _):
            return 0.0

        def set(self, *_):
            return False

        def release(self):
            pass

    real = cv2.VideoCapture
    place.monkeypatch.setattr(cv2, "VideoCapture", lambda *a: Nothing() if a[0] == 86 else real(*a))
    place.monkeypatch.setattr(cameras, "sys", SimpleNamespace(platform="win32"))
    return "86"


def video(place: Place, codec: str, name: str) -> Path:
    return write_video(place.folder / name, noise(50), codec=codec)


def cut_off(place: Place, codec: str, name: str) -> str:
    path = video(place, codec, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return str(path)


def avi_that_tells(place: Place, frames: int) -> str:
    """An AVI of 50 frames whose two headers tell another number."""
    path = video(place, "MJPG", "lies.avi")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"avih") + 24, frames)
    struct.pack_into("<I", data, data.find(b"strh") + 40, frames)
    path.write_bytes(data)
    return str(path)


def images_of_every_kind(place: Place) -> str:
    """Gray, BGRA and 16-bit ones, of one pixel and of 4K, of changing size and shape."""
    images = [
        np.full((48, 64), 90, np.uint8),
        np.full((48, 64, 4), 90, np.uint8),
        np.full((48, 64, 3), 90 * 257, np.uint16),
        np.full((48, 64), 90 * 257, np.uint16),
        np.full((1, 1, 3), 90, np.uint8),
        np.full((2160, 3840, 3), 90, np.uint8),
        np.full((300, 7, 3), 90, np.uint8),
    ]
    for number, image in enumerate(images):
        cv2.imwrite(str(place.folder / f"{number}.png"), image)
    return str(place.folder)


def written(place: Place, name: str, data: bytes) -> str:
    (place.folder / name).write_bytes(data)
    return str(place.folder / name)


# fault, how it is made, state and words afterwards, images that were shown at least
SOURCES = [
    ("no camera", lambda p: "97", "failed", "No camera 97", 0),
    ("no such number", lambda p: "9" * 30, "failed", "another number", 0),
    ("busy camera, Linux", camera_that_cannot_be_opened, "failed", "Close other programs", 0),
    ("busy camera, elsewhere", camera_that_shows_nothing, "failed", "Close other programs", 0),
    ("address: nobody there", lambda p: "http://127.0.0.1:1/x", "failed", "Check the address", 0),
    ("rtsp: nobody there", lambda p: "rtsp://127.0.0.1:1/x", "failed", "Check the address", 0),
    ("gone mid-stream", lambda p: p.camera.address + "/gone", "failed", "stopped delivering", 1),
    ("stalls for 5 s", lambda p: p.camera.address + "/stall", "failed", "stalled: no ", 1),
    ("never answers", lambda p: p.camera.address + "/silent", "failed", "gives no video", 0),
    ("missing file", lambda p: str(p.folder / "none.avi"), "failed", "Check the spelling", 0),
    ("no source", lambda p: " ", "failed", "No source given", 0),
    ("name too long", lambda p: "x" * 3000, "failed", "cannot be opened", 0),
    ("empty file", lambda p: written(p, "no.mp4", b""), "failed", "empty file", 0),
    ("no video", lambda p: written(p, "no.avi", b"text" * 99), "failed", "is it a video?", 0),
    ("empty folder", lambda p: str(p.folder), "failed", "no images", 0),
    ("AVI cut off", lambda p: cut_off(p, "MJPG", "c.avi"), "stopped", "c.avi ended after 25 of 50", 25),
    ("mp4 cut off", lambda p: cut_off(p, "mp4v", "c.mp4"), "failed", "no frame can be decoded", 0),
    ("header tells too much", lambda p: avi_that_tells(p, 500), "stopped", "50 of 500 frames", 50),
    ("header tells too little", lambda p: avi_that_tells(p, 10), "stopped", "The end of lies.avi", 50),
    ("any image", images_of_every_kind, "stopped", "The end of", 6),
]


@pytest.mark.parametrize("fault, make, state, words, shown", SOURCES, ids=[row[0] for row in SOURCES])
def test_source(fault, make, state, words, shown, tmp_path, camera, clip, monkeypatch):
    (tmp_path / "images").mkdir()
    with ExitStack() as undo, session_for(camera=camera) as session:
        place = Place(tmp_path / "images", camera, monkeypatch, undo)
        assert session.start(make(place), paced=False)
        wait_for(lambda: not session.running, 15)
        assert session.state == state and words in session.status
        assert (session.latest.number + 1 if session.latest else 0) >= shown
        assert_given_back(session, camera)
        monkeypatch.undo()
        assert_starts_again(session, clip)


def test_camera_in_use_is_not_named_with_its_password(camera):
    address = camera.address.replace("//", "//user:secret@") + "/gone"
    with session_for(camera=camera) as session:
        session.start(address)
        assert "secret" not in session.status
        wait_for(lambda: session.state == "failed")
        assert "127.0.0.1" in session.status and "secret" not in session.status


def test_images_of_changing_size_from_a_camera(camera, clip, tmp_path):
    """OpenCV scales those of a stream; the browser's are what they are (a telephone that is turned)."""

    def turned(_):
        frames = ((np.zeros((48, 64, 3) if i % 8 < 4 else (64, 48, 3), np.uint8), i / 25) for i in range(40))
        return sources.Source("telephone", frames, lambda: None, is_live=True)

    for opener in (None, turned):
        with session_for(camera=camera) as session:
            probe = session._opener
            session._opener = opener or probe
            session.start(camera.address + "/resize")
            session.record(tmp_path / "out.mp4")
            wait_for(lambda s=session: not s.running or (s.latest is not None and s.latest.number > 25))
            session._opener = probe
            assert_given_back(session, camera)
            assert count_frames(tmp_path / "out.mp4") > 0
            assert_starts_again(session, clip)


# --- starting and stopping


def test_two_starts_and_two_stops(clip, camera):
    with session_for(camera=camera) as session:
        for _ in range(3):
            assert session.start(camera.address + "/endless") and not session.start(clip)
            wait_for(lambda: session.state == "running")
            assert session.stop() and session.stop()
            assert session.state == "stopped" and "is closed" in session.status
            assert_given_back(session, camera)
        assert_starts_again(session, clip)


def test_stop_while_it_starts(clip, camera):
    """The camera accepts the connection and never answers: Stop does not wait, Start waits in its own thread."""
    with session_for(camera=camera) as session:
        session.start(camera.address + "/silent")
        wait_for(lambda: camera.viewers == 1)
        assert not session.stop(wait=False), "it is still being opened"
        assert session.start(clip) and not session.start(clip)
        wait_for(lambda: session.state == "running")
        wait_for(
            lambda: camera.viewers == 0, 1
        )  # one source at a time: a second is less than the old one takes to give up
        assert session.stop()
        session.start(camera.address + "/silent")
        assert session.stop() and session.state == "stopped", "not a failure: it was asked for"
        assert_given_back(session, camera)
        assert_starts_again(session, clip)


def test_stop_before_start_is_harmless():
    with session_for() as session:
        assert session.stop()
        session.pause()
        assert not session.record("out.mp4")
        assert session.state == "ready" and "press Start first" in session.status


# --- models


@pytest.mark.parametrize("error", [RuntimeError("tensor of the wrong shape"), MemoryError("no room")])
@pytest.mark.parametrize("kind", ["video", "camera"])
def test_exception_inside_a_model(kind, error, clip, camera, tmp_path):
    class Broken(pipeline_module.Pipeline):
        def step(self, *arguments):
            if self._frame_index == 5:
                raise error
            return super().step(*arguments)

    with session_for(Broken(None, None, None), camera) as session:
        session.start(clip if kind == "video" else camera.address + "/endless")
        session.record(tmp_path / "out.mp4")
        wait_for(lambda: not session.running)
        assert session.state == "failed"
        assert type(error).__name__ in session.status and str(error) in session.status
        assert count_frames(tmp_path / "out.mp4") > 0, "what was recorded plays"
        assert_given_back(session, camera)
        assert_starts_again(session, clip)


def test_exception_inside_a_network(camera, clip):
    """The committed action network, given images of a size that it does not take; its lock is free afterwards."""
    pipeline = pipeline_module.Pipeline.load()
    pipeline.action = replace(pipeline.action, spec=replace(pipeline.action.spec, size=128))
    with session_for(pipeline, camera) as session:
        session.start(camera.address + "/endless")
        wait_for(lambda: not session.running, 30)
        assert session.state == "failed" and "Dimension mismatch" in session.status
        assert_given_back(session, camera)
        assert_starts_again(session, clip)


# --- disks


@contextmanager
def small_disk(folder: Path):
    """A real file system of 8 MB."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk needs Linux and root ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def small_files(folder: Path):
    """No file of this process may become larger than 8 MB, as with a quota."""
    folder.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, hard))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noisy_video(folder: Path) -> Path:
    """8 seconds: annotated and recorded it would be about 20 MB."""
    return write_video(folder / "noise.avi", noise(40, (480, 640)) * 5, codec="MJPG")


@pytest.mark.parametrize("disk", [small_disk, small_files])
def test_full_disk_while_recording(disk, tmp_path, clip):
    source = noisy_video(tmp_path)
    with session_for() as session, disk(tmp_path / "disk") as folder:
        session.start(source, paced=False)
        wait_for(lambda: session.state == "running")
        assert session.record(folder / "out.mp4", folder / "out.csv")
        wait_for(lambda: not session.recording, 20)
        assert "What was recorded before plays" in session.status and "out.mp4" in session.status
        assert session.running, "the stream goes on"
        rows = (folder / "out.csv").read_text(encoding="utf-8").splitlines()
        assert len(rows) > 30 and count_frames(folder / "out.mp4") >= len(rows) - 26, "all but the last two fragments"
        assert_given_back(session)
        assert_starts_again(session, clip)


def test_full_disk_on_the_command_line(tmp_path):
    with (
        small_disk(tmp_path / "disk") as folder,
        pytest.raises(errors_module.OutputError, match="out.mp4.*recorded before plays"),
    ):
        live_run.run(noisy_video(tmp_path), idle_pipeline(), output=folder / "out.mp4")
    with small_disk(tmp_path / "again") as folder:
        with pytest.raises(errors_module.OutputError):
            live_run.run(tmp_path / "noise.avi", idle_pipeline(), output=folder / "out.mp4")
        assert count_frames(folder / "out.mp4") > 10


def test_disk_without_any_room(tmp_path, clip):
    with session_for() as session, small_disk(tmp_path / "disk") as folder:
        (folder / "other").write_bytes(bytes(shutil.disk_usage(folder).free))
        session.start(clip)
        wait_for(lambda: session.state == "running")
        session.record(folder / "out.mp4")
        wait_for(lambda: not session.recording)
        assert "Nothing was recorded" in session.status and os.listdir(folder) == ["other"]
        assert not session.record(None, folder / "out.csv")
        assert "out.csv: cannot be written any more" in session.status and session.running
        assert_given_back(session)
        assert_starts_again(session, clip)


def test_folder_that_is_removed_while_recording(tmp_path, clip):
    (tmp_path / "out").mkdir()
    with session_for() as session:
        session.start(clip)
        session.record(tmp_path / "out" / "out.mp4")
        wait_for(lambda: session.latest is not None and session.recording)
        shutil.rmtree(tmp_path / "out")
        wait_for(lambda: not session.recording)
        assert "cannot be written any more" in session.status and session.running
        assert_given_back(session)
        assert_starts_again(session, clip)


def test_path_that_cannot_be_written(tmp_path, clip):
    (tmp_path / "file").touch()
    with session_for() as session:
        session.start(clip)
        wait_for(lambda: session.state == "running")
        assert not session.record(tmp_path / "file" / "out.mp4")
        assert "cannot be written" in session.status and session.running and not session.recording
        assert not session.record(tmp_path / "out.mp4", tmp_path)
        assert not session.recording
        assert_given_back(session)
        assert_starts_again(session, clip)


# --- the kernel, the process


class Kernel:
    """A real Jupyter kernel."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=REPOSITORY)
        self.run(
            "import threading, time\nfrom helpers.live import run as live_run, session as session_module\n"
            "from helpers.live.pipeline import Pipeline\npipeline = Pipeline(None, None, None)"
        )

    def run(self, code: str, while_running=lambda: None) -> str:
        """What the cell printed; `while_running` is called once it runs."""
        printed = []

        def take(message):
            content = message["content"]
            assert message["msg_type"] != "error", content
            printed.append(content.get("text", "") if message["msg_type"] == "stream" else "")
            if message["msg_type"] == "execute_input":
                while_running()

        self.client.execute_interactive(textwrap.dedent(code), timeout=60, output_hook=take)
        return "".join(printed)

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel():
    kernel = Kernel()
    yield kernel
    kernel.close()


def stream_and_record(kernel, camera, path: Path) -> None:
    printed = kernel.run(f"""
        session = session_module.LiveSession(pipeline)
        session.start({camera.address + "/endless"!r})
        while session.latest is None: time.sleep(0.01)
        print(session.record({str(path)!r}), session.status)
        while session.latest.number < 50: time.sleep(0.01)
        """)
    assert printed.startswith("True Recording") and camera.viewers == 1


def test_kernel_interrupt_of_a_cell_that_runs_a_camera(kernel, camera, tmp_path):
    output, timeline = tmp_path / "out.mp4", tmp_path / "out.csv"

    def interrupt():
        wait_for(lambda: timeline.exists() and timeline.read_text(encoding="utf-8").count("\n") > 5, 30)
        kernel.manager.interrupt_kernel()

    files = f"output={str(output)!r}, csv_path={str(timeline)!r}"
    run = f"summary = live_run.run({camera.address + '/endless'!r}, pipeline, {files})\n"
    end = "print(summary.interrupted, summary.frames > 0, [t.name for t in threading.enumerate() if 'live-' in t.name])"
    for _ in range(2):  # and it starts again
        timeline.unlink(missing_ok=True)
        assert kernel.run(run + end, interrupt) == "True True []\n"
        wait_for(lambda: camera.viewers == 0)
        assert count_frames(output) > 0


def test_kernel_interrupt_while_a_session_streams(kernel, camera, tmp_path):
    """It reaches the cell that runs, not the stream."""
    stream_and_record(kernel, camera, tmp_path / "out.mp4")
    code = "try: time.sleep(20)\nexcept KeyboardInterrupt: print(session.state)"
    assert kernel.run(code, lambda: (time.sleep(0.5), kernel.manager.interrupt_kernel())) == "running\n"
    assert kernel.run("print(session.stop(), session.state)") == "True stopped\n"
    wait_for(lambda: camera.viewers == 0)
    assert count_frames(tmp_path / "out.mp4") > 0


@pytest.mark.parametrize("end", ["shutdown", "restart"])
def test_kernel_that_ends_while_it_streams(end, kernel, camera, tmp_path):
    stream_and_record(kernel, camera, tmp_path / "out.mp4")
    if end == "restart":
        kernel.manager.restart_kernel()
    else:
        kernel.manager.shutdown_kernel()
    wait_for(lambda: camera.viewers == 0)
    assert count_frames(tmp_path / "out.mp4") > 10, "what was recorded plays"
    if end == "restart":
        kernel.client.wait_for_ready(timeout=60)
        kernel.run(
            "import time\nfrom helpers.live import session as session_module\n"
            "from helpers.live.pipeline import Pipeline\npipeline = Pipeline(None, None, None)"
        )
        stream_and_record(kernel, camera, tmp_path / "again.mp4")


def test_kernel_that_is_killed_frees_the_camera(kernel, camera, tmp_path):
    stream_and_record(kernel, camera, tmp_path / "out.mp4")
    kernel.manager.shutdown_kernel(now=True)
    wait_for(lambda: camera.viewers == 0)


def test_restart_of_the_cell_closes_the_panel_before(kernel, camera):
    cell = f"""
        from helpers.live.panel import LivePanel
        panel = LivePanel(pipeline)
        panel.source.value, panel.address.value = "another", {camera.address + "/endless"!r}
        panel.start.click()
        while panel.session.latest is None: time.sleep(0.01)
        print(panel.session.state, sum(t.name == "live-session" for t in threading.enumerate()))
        """
    for _ in range(3):
        assert kernel.run(cell) == "running 1\n"
        wait_for(lambda: camera.viewers == 1)
    assert kernel.run("panel.close(); print([t.name for t in threading.enumerate() if 'live-' in t.name])") == "[]\n"
    wait_for(lambda: camera.viewers == 0)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_command_line_that_is_ended_finishes_its_files(sign, camera, tmp_path):
    output, timeline = tmp_path / "out.mp4", tmp_path / "out.csv"
    command = [sys.executable, "-m", "helpers.live", "--headless", "--source", camera.address + "/endless"]
    process = subprocess.Popen(
        [*command, "--output", output, "--csv", timeline],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: timeline.exists() and timeline.read_text(encoding="utf-8").count("\n") > 10, 90)
    process.send_signal(sign)
    printed, _ = process.communicate(timeout=30)
    rows = timeline.read_text(encoding="utf-8").splitlines()
    assert process.returncode == 130
    counted = int(re.match(r"frames=(\d+) ", printed)[1])
    assert counted <= len(rows) - 1 <= counted + 1, "the signal may come while a frame is written"
    assert count_frames(output) > 0
    wait_for(lambda: camera.viewers == 0)


def test_command_line_that_is_ended_while_the_camera_is_opened(camera):
    command = [sys.executable, "-m", "helpers.live", "--headless", "--source", camera.address + "/silent"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: camera.viewers == 1, 90)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in errors and "before the first frame" in errors
    wait_for(lambda: camera.viewers == 0)
