"""The committed live notebook in a real JupyterLab, driven by hand in headless Chromium: clicks, keys, a camera.

Needs Playwright and a Chromium or Chrome on PATH (or its path in HAR_CHROMIUM); skipped with the reason where one is
missing, unless HAR_REQUIRE_BROWSER is set (CI). HAR_SCREENSHOT=FILE keeps the picture of the panel that README shows.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import cv2
import nbformat
import pytest
from jupyter_client import BlockingKernelClient
from live_tools import ip_camera, wait_for
from nbformat.sign import NotebookNotary

from helpers.data.paths import REPOSITORY
from helpers.data.videos import read_frames, write_video
from helpers.live.panel import ABANDONED
from helpers.synthetic.samples import demo_clip
from helpers.synthetic.scenes import render_action

try:
    from playwright.sync_api import Error, TimeoutError, expect, sync_playwright
except ImportError:  # there are systems it is not made for
    sync_playwright = None

NOTEBOOK = "notebooks/07_live_webcam.ipynb"
CAMERA, ADDRESS = "This browser's camera", "File, folder or address"
WINDOW = {"width": 1400, "height": 1300}
LIMIT_S = 120  # for anything that is waited for; the machine may be busy
TRAINING_S = 600  # for a model of eight clips
GONE_S = 60  # a page that went away must be noticed by then; where it says nothing, that takes 25 s
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream"),
]

# In every page: the pictures that the panel really showed, by their content, and the camera tracks that were given out.
WATCH = """
window.seen = {pictures: new Set(), tracks: []};
document.addEventListener("load", ({target}) => {
  if (!target.matches?.(".widget-image")) return;
  const canvas = new OffscreenCanvas(32, 24).getContext("2d", {willReadFrequently: true});
  canvas.drawImage(target, 0, 0, 32, 24);
  window.seen.pictures.add(canvas.getImageData(0, 0, 32, 24).data.join());
}, true);
if (navigator.mediaDevices) {
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await open(wanted);
    window.seen.tracks.push(...stream.getTracks());
    return stream;
  };
}
"""

# What is left of a session or panel. All objects are looked at only when no thread is left: LiteRT would take the list
# of them for somebody who holds its memory, and refuse to run.
LEFT = """
import gc, threading
from helpers.live.sources import Source
threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("live-")]
print(threads or [source.name for source in gc.get_objects() if isinstance(source, Source) and not source.closed])
"""


def missing() -> str:
    """Why no browser can be driven here, "" when one can."""
    if sync_playwright is None:
        return "no Playwright (pip install -r requirements.txt)"
    return "" if chromium() else "no Chromium or Chrome on PATH (Debian: apt-get install chromium)"


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("HAR_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


# --- a server and a browser -----------------------------------------------------------------------


class Lab:
    """A JupyterLab server of its own in `folder`, with a copy of the notebook: nothing of the user's is read or
    written, nothing is downloaded."""

    def __init__(self, folder: Path):
        self.folder, self.token, self.port = folder, secrets.token_hex(16), free_port()
        (folder / NOTEBOOK).parent.mkdir(parents=True)
        shutil.copy(REPOSITORY / NOTEBOOK, folder / NOTEBOOK)
        settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        places = {
            name: str(folder / name.lower())
            for name in (
                "JUPYTER_CONFIG_DIR",
                "JUPYTER_DATA_DIR",
                "IPYTHONDIR",
                "JUPYTER_RUNTIME_DIR",
                "JUPYTERLAB_WORKSPACES_DIR",
            )
        }
        Path(places["JUPYTER_DATA_DIR"]).mkdir()  # trusted, as after `jupyter trust`: else no widget survives a reload
        NotebookNotary(data_dir=places["JUPYTER_DATA_DIR"]).sign(nbformat.read(folder / NOTEBOOK, as_version=4))
        environment = {
            **os.environ,
            **places,
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            "JUPYTER_TOKEN": self.token,
            "HAR_PROFILE": "cached",
        }
        self.runtime = Path(places["JUPYTER_RUNTIME_DIR"])
        with (folder / "server.log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "jupyterlab",
                    "--no-browser",
                    "--allow-root",
                    "--ServerApp.ip=127.0.0.1",
                    f"--ServerApp.port={self.port}",
                    "--ServerApp.port_retries=0",
                    f"--ServerApp.root_dir={folder}",
                ],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self) -> str:
        return f"{self.origin}/lab/tree/{NOTEBOOK}?reset&token={self.token}"

    def wait_until_ready(self) -> None:
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                urllib.request.urlopen(f"{self.origin}/api/status?token={self.token}", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, self.log
                time.sleep(0.1)

    def ask(self, code: str) -> str:
        """What the notebook's kernel prints for `code`, asked past the browser, as a second client; not a
        cell (silent), so that nothing that waits for the end of a cell sees one."""
        (connection,) = self.runtime.glob("kernel-*.json")
        client = BlockingKernelClient(connection_file=str(connection))
        client.load_connection_file()
        client.start_channels()
        printed = []

        def keep(message):
            assert message["msg_type"] != "error", message["content"]
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        try:
            client.execute_interactive(code, silent=True, output_hook=keep, timeout=LIMIT_S)
        finally:
            client.stop_channels()
        return "".join(printed).strip()

    def wait_until_released(self) -> None:
        """Until the kernel has no open source and no thread of a session or panel; fails after GONE_S."""
        end = time.monotonic() + GONE_S
        while (left := self.ask(LEFT)) != "[]":
            assert time.monotonic() < end, left
            time.sleep(0.2)

    def close(self) -> None:
        self.process.terminate()  # shuts the kernels down, too
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    if reason := missing():
        pytest.fail(reason) if os.environ.get("HAR_REQUIRE_BROWSER") else pytest.skip(reason)
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.wait_until_ready()
        yield lab
    finally:
        lab.close()
    assert not re.search(r"helpers/\w+\.py", lab.log), lab.log  # a traceback through this project's code


@pytest.fixture(scope="module")
def camera_film(tmp_path_factory):
    """What the browser's fake camera sees again and again: four seconds of the demo clip as JPEGs in a row."""
    path = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    with path.open("wb") as film:
        for frame, time_s in read_frames(demo_clip()):
            if 3 <= time_s < 7:
                film.write(cv2.imencode(".jpg", frame)[1].tobytes())
    return path


@pytest.fixture(scope="module")
def browser(lab, camera_film):
    expect.set_options(timeout=LIMIT_S * 1000)
    with sync_playwright() as playwright:
        flags = [*FLAGS, f"--use-file-for-fake-video-capture={camera_film}"]
        browser = playwright.chromium.launch(executable_path=chromium(), args=flags)
        yield browser
        browser.close()


class Sheet:
    """The notebook on a page, and the panel in it."""

    def __init__(self, lab: Lab, browser):
        self.lab, self.errors = lab, []
        self.context = browser.new_context(viewport=WINDOW)
        self.context.set_default_timeout(LIMIT_S * 1000)
        self.context.add_init_script(WATCH)
        self.open()

    def open(self) -> None:
        """On a new page; ready to run cells."""
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(f"{error}\n{error.stack}"))
        self.page.on("dialog", lambda dialog: dialog.accept())  # "leave without saving?"
        self.panel = self.page.locator(".jp-OutputArea-output .widget-vbox:not(.widget-vbox .widget-vbox)")
        self.status = self.panel.locator(".widget-html [role=status]")
        self.page.goto(self.lab.url())
        self.page.get_by_text(re.compile(r"\| Idle$")).wait_for()  # the kernel's state in the status bar

    def run_to_the_panel(self) -> None:
        """Click into the first code cell, Shift+Enter four times: imports, parameters, a heading, the panel."""
        self.page.locator(".jp-CodeCell .cm-content").first.click()
        for _ in range(4):
            self.page.keyboard.press("Shift+Enter")
        expect(self.panel).to_contain_text("Ready. Press Start.")  # a new one, not the one before
        expect(self.panel).to_have_count(1)

    def press(self, name: str) -> None:
        self.panel.get_by_role("button", name=name).click()

    def choose(self, source: str) -> None:
        self.panel.get_by_label("Source").select_option(label=source)

    def allow_camera(self) -> None:
        self.context.grant_permissions(["camera"], origin=self.lab.origin)

    def wait_for_pictures(self, count: int = 5) -> None:
        """Until so many different pictures were shown from now on."""
        self.page.evaluate("seen.pictures.clear()")
        try:
            self.page.wait_for_function("count => seen.pictures.size >= count", arg=count)
        except TimeoutError as error:
            came = self.page.evaluate("seen.pictures.size")
            panel = self.panel.inner_text()
            raise AssertionError(f"{came} of {count} pictures. The panel:\n{panel}\n{self.lab.log}") from error

    def watch_labels(self) -> None:
        """Until an action and an emotion were named, and a speed."""
        for words in (r"Action: [a-z]", r"Face \d+: [a-z]", r"[1-9]\d* frames a second"):
            expect(self.panel).to_contain_text(re.compile(words))

    def pictures_come_while_a_cell_runs(self) -> None:
        """Insert a cell below the panel, run it, see pictures before it ends, and then what it prints."""
        gate = self.lab.folder / "gate"
        gate.unlink(missing_ok=True)
        self.page.locator(".jp-CodeCell", has=self.panel).locator(".jp-InputPrompt").click()
        self.page.keyboard.press("b")
        self.page.keyboard.press("Enter")
        self.page.keyboard.insert_text(
            "print('working', flush=True)\nwhile not Path('../gate').exists():\n    time.sleep(0.05)\nprint(6 * 7)"
        )
        self.page.keyboard.press("Control+Enter")
        cell = self.page.locator(".jp-CodeCell", has=self.panel).locator("xpath=following-sibling::*[1]")
        output = cell.locator(".jp-OutputArea-output")
        expect(output).to_have_text("working\n")
        self.wait_for_pictures()
        gate.touch()
        expect(output).to_have_text("working\n42\n")

    def restart_kernel(self) -> None:
        """By the keys that Jupyter has for it."""
        self.page.locator(".jp-CodeCell").first.locator(".jp-InputPrompt").click()
        self.page.keyboard.press("0")
        self.page.keyboard.press("0")
        self.page.get_by_role("button", name="Confirm Kernel Restart").click()

    def stop(self, source: str) -> None:
        """Press Stop; a film that ended before, on a slow machine, is started once more."""
        if self.panel.get_by_role("button", name="Start").is_enabled():
            self.press("Start")
        self.press("Stop")
        expect(self.status).to_have_text(f"Stopped; {source} is closed.")
        self.lab.wait_until_released()

    def tracks(self) -> list[str]:
        """State of every camera track that this page was given: "live" or "ended"."""
        return self.page.evaluate("seen.tracks.map(track => track.readyState)")


@pytest.fixture(scope="module")
def sheet(lab, browser):
    sheet = Sheet(lab, browser)
    yield sheet
    sheet.context.close()
    assert not sheet.errors, "\n".join(sheet.errors)


# --- what a person does, and sees: each test runs the panel's cell again --------------------------


def test_the_demo_clip(sheet):
    sheet.run_to_the_panel()
    sheet.press("Start")
    sheet.wait_for_pictures(10)
    sheet.watch_labels()
    if path := os.environ.get("HAR_SCREENSHOT"):
        expect(sheet.panel).to_contain_text("Action: wave two hands")
        sheet.page.wait_for_timeout(1500)  # until it is sure of it
        sheet.panel.screenshot(path=path)
    sheet.stop("the demo clip")

    sheet.press("Start")
    sheet.pictures_come_while_a_cell_runs()
    sheet.stop("the demo clip")


def test_nothing_is_cut_off_on_a_narrow_page(sheet):
    sheet.run_to_the_panel()
    picture, bars = sheet.panel.locator(".widget-image"), sheet.panel.locator(".widget-html").first
    try:
        for width, beside in ((900, False), (1280, True)):  # of the window; the file browser takes 280 pixels of it
            sheet.page.set_viewport_size({"width": width, "height": 1300})
            sheet.page.wait_for_function("width => innerWidth == width", arg=width)
            cut = sheet.panel.evaluate("""panel => [panel, ...panel.querySelectorAll(".widget-box, .widget-html")]
                .filter(part => part.scrollWidth > part.clientWidth).map(part => part.className)""")
            assert cut == [], f"wider than its place in a window of {width} pixels"
            assert (bars.bounding_box()["x"] > picture.bounding_box()["x"]) == beside
    finally:
        sheet.page.set_viewport_size(WINDOW)


def test_the_panel_without_a_mouse(sheet):
    sheet.run_to_the_panel()

    def tab_to(name):
        sheet.page.keyboard.press("Tab")
        expect(sheet.page.locator(":focus")).to_have_text(name)

    sheet.panel.get_by_label("Source").focus()
    tab_to("Start")
    sheet.page.keyboard.press("Enter")
    sheet.wait_for_pictures()
    tab_to("Pause")
    sheet.page.keyboard.press("Space")
    expect(sheet.status).to_have_text("Paused.")
    sheet.page.keyboard.press("Space")
    sheet.wait_for_pictures()
    tab_to("Stop")
    sheet.page.keyboard.press("Enter")
    expect(sheet.status).to_have_text("Stopped; the demo clip is closed.")


def test_the_camera_of_the_browser(lab, sheet):
    sheet.run_to_the_panel()
    sheet.choose(CAMERA)

    sheet.press("Start")  # nobody allowed it
    expect(sheet.status).to_contain_text("The browser may not use the camera.")
    lab.wait_until_released()

    sheet.allow_camera()
    sheet.press("Start")
    sheet.wait_for_pictures(10)
    sheet.watch_labels()  # the face can only be that of the camera's film
    sheet.pictures_come_while_a_cell_runs()
    assert sheet.tracks() == ["live"]
    sheet.stop("the browser's camera")
    assert sheet.tracks() == ["ended"]

    sheet.press("Start")
    sheet.wait_for_pictures()
    sheet.context.clear_permissions()  # revoked while it streams
    expect(sheet.status).to_contain_text("The camera was taken away from the page")
    lab.wait_until_released()
    assert sheet.tracks() == ["ended", "ended"]

    sheet.allow_camera()
    sheet.press("Start")
    sheet.wait_for_pictures()
    sheet.run_to_the_panel()  # the cell once more: the panel before it is closed, and its camera
    sheet.page.wait_for_function("seen.tracks.every(track => track.readyState == 'ended')")
    lab.wait_until_released()

    sheet.choose(CAMERA)
    sheet.press("Start")
    sheet.wait_for_pictures()
    sheet.stop("the browser's camera")
    assert sheet.tracks() == ["ended"] * 4


def test_a_kernel_that_restarts_while_the_browsers_camera_streams(lab, sheet):
    sheet.allow_camera()
    sheet.run_to_the_panel()
    sheet.choose(CAMERA)
    sheet.press("Start")
    sheet.wait_for_pictures()
    given = len(sheet.tracks())
    sheet.restart_kernel()
    sheet.page.wait_for_function("seen.tracks.every(track => track.readyState == 'ended')")

    sheet.run_to_the_panel()
    sheet.choose(CAMERA)
    sheet.press("Start")
    sheet.wait_for_pictures()
    sheet.stop("the browser's camera")
    assert sheet.tracks() == ["ended"] * (given + 1)


LEARNED = {"hello": "wave_two_hands", "bow": "bend"}  # labels of one's own, and what a synthetic person does


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """{(label, person): a video of sixteen seconds of a synthetic person}"""
    folder = tmp_path_factory.mktemp("films")
    return {
        (label, person): write_video(folder / f"{label}-{person}.mp4", render_action(action, seed, 16.0))
        for label, action in LEARNED.items()
        for seed, person in enumerate(("anna", "bert", "carl"))
    }


@pytest.mark.training
def test_from_nothing_to_a_recogniser_of_two_actions(lab, sheet, films):
    """Record clips of two people, train, and let it see a third one: all with the mouse, a video as the camera."""

    def play(film):
        sheet.choose(ADDRESS)
        sheet.panel.get_by_placeholder("video.mp4").fill(str(film))
        sheet.press("Start")

    sheet.run_to_the_panel()
    sheet.panel.get_by_text("Own actions").click()
    own = sheet.panel.locator(".widget-accordion")

    def fill(field, text):
        own.get_by_label(field, exact=True).fill(text)
        sheet.page.keyboard.press("Tab")

    fill("Folder", str(lab.folder / "own"))
    fill("Seconds", "2")
    fill("Clips", "2")
    for label, person in ((label, person) for label, person in films if person != "carl"):
        fill("Label", label)
        fill("Person", person)
        play(films[label, person])
        own.get_by_role("button", name="Record clips").click()
        expect(own).to_contain_text(re.compile(rf"Clips so far: .*\b{label} {2 if person == 'anna' else 4}\b"))
        sheet.stop(films[label, person].name)

    own.get_by_role("button", name="Train").click()
    expect(own).to_contain_text("own-model and chosen", timeout=TRAINING_S * 1000)
    for label in LEARNED:
        play(films[label, "carl"])
        expect(sheet.panel).to_contain_text(f"Action: {label}")
        sheet.stop(films[label, "carl"].name)


@pytest.fixture
def network_camera():
    with ip_camera() as camera:
        yield camera


@pytest.mark.parametrize(
    "source, farewell, silence",
    [(CAMERA, "The page with the panel was closed or reloaded", "stalled"), (ADDRESS, ABANDONED, ABANDONED)],
    ids=["the browser's camera", "a camera of the kernel"],
)
def test_a_page_that_goes_away_gives_the_camera_back(source, farewell, silence, lab, sheet, network_camera):
    def stream():
        sheet.choose(source)
        if source == ADDRESS:
            sheet.panel.get_by_placeholder("video.mp4").fill(f"{network_camera.address}/endless")
        sheet.press("Start")
        sheet.wait_for_pictures()

    def said() -> str:
        lab.wait_until_released()
        wait_for(lambda: network_camera.viewers == 0)
        return lab.ask("print(panel.session.status)")

    sheet.run_to_the_panel()
    sheet.allow_camera()
    stream()
    sheet.page.keyboard.press("Control+s")  # what is saved comes back with the page
    expect(sheet.page.get_by_role("tab", name="07_live_webcam")).not_to_have_class(re.compile("jp-mod-dirty"))
    sheet.page.reload()
    expect(sheet.status).to_contain_text(farewell)
    assert farewell in said()

    stream()  # the panel came back, and works
    with suppress(Error):
        sheet.page.goto("chrome://crash")  # no farewell: the kernel only hears nothing any more
    assert silence in said()

    sheet.open()
    sheet.run_to_the_panel()
    stream()
    sheet.page.close()
    assert farewell in said()
    sheet.open()  # for the next test
