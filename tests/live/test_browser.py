"""The kernel's half of the browser's camera: a real widget, driven by the messages that browser.js sends. What a real
browser does is in test_lab.py; here the page is a thread that speaks its protocol, or the client of a real kernel.
"""

from __future__ import annotations

import queue
import re
import shutil
import subprocess
import threading
import time
from itertools import cycle

import cv2
import numpy as np
import pytest
from comm.base_comm import BaseComm
from live_tools import count_frames, ip_camera, wait_for
from test_panel import Kernel

from helpers.errors import SourceError
from helpers.live import browser, pipeline
from helpers.live import panel as panel_module
from helpers.live.browser import BROWSER, PROBLEMS, UNANSWERED, BrowserCamera
from helpers.live.panel import ABANDONED, LivePanel


def jpeg(shade: int = 100, size=(48, 64)) -> bytes:
    return cv2.imencode(".jpg", np.full((*size, 3), shade, np.uint8))[1].tobytes()


class Page(BaseComm):
    """A page that shows the widget: answers the kernel's messages in a thread of its own, as a browser does.

    frames: JPEGs to send, one after each acknowledgement. refusal: name of the error that getUserMedia ends in,
    None: it opens the camera, "later": the person has not answered yet. heard, sent: all messages.
    """

    def __init__(self, camera: BrowserCamera, name="page-1", frames=None, refusal=None, visible=True):
        self.name, self.refusal, self.visible = name, refusal, visible
        self.frames = iter(cycle([jpeg()]) if frames is None else frames)
        self.heard, self.sent, self.capturing, self.run = [], [], False, None
        self._inbox, self.seq, self.clock_ms = queue.Queue(), 0, 5000.0
        super().__init__(target_name="jupyter.widget")
        camera.comm = self  # sets the widget's handler, too
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **_):
        if msg_type == "comm_msg" and data["method"] == "custom":
            self._inbox.put(data["content"])
        elif msg_type == "comm_close":
            self.capturing = False

    def _live(self):
        while (message := self._inbox.get()) is not None:
            self.heard.append(message)
            kind = message["kind"]
            if kind == "ask" and self.visible:
                self.tell("present")
            if kind == "start" and self.visible:
                self.tell("here", run=message["run"])
            if kind == "go" and message["page"] == self.name:
                self.run = message["run"]
                if self.refusal and self.refusal != "later":
                    self.tell("failed", name=self.refusal, message="as the browser says")
                elif not self.refusal:
                    self.capturing = True
                    self.tell("open")
                    self.send_next()
            if kind == "ack" and self.capturing and message["seq"] == self.seq - 1:
                time.sleep(0.005)
                self.send_next()
            if kind == "stop" and message["run"] == self.run:
                self.capturing = False
            self._inbox.task_done()

    def tell(self, kind, buffers=(), **more):
        content = {"kind": kind, "run": self.run, "page": self.name, **more}
        self.sent.append(content)
        data = {"method": "custom", "content": content}
        self.handle_msg({"content": {"data": data}, "buffers": [memoryview(b) for b in buffers]})

    def send_next(self):
        frame = next(self.frames, None)
        if frame is not None:
            self.seq += 1
            self.clock_ms += 40
            self.tell("frame", [frame], seq=self.seq - 1, time=self.clock_ms)

    def take_in(self) -> None:
        """Returns when all messages were answered; only while no frames go to and fro."""
        self._inbox.join()

    def acks(self) -> list[int]:
        return [message["seq"] for message in self.heard if message["kind"] == "ack"]

    def leave(self):
        self._inbox.put(None)
        self._thread.join()


@pytest.fixture
def camera():
    camera = BrowserCamera()
    yield camera
    camera.close()


@pytest.fixture
def show(camera):
    """Makes the page that shows the widget."""
    pages = []

    def make(**how) -> Page:
        pages.append(Page(camera, **how))
        return pages[-1]

    yield make
    for page in pages:
        page.leave()


@pytest.fixture
def short(monkeypatch):
    """Patience for tests, not for people."""
    monkeypatch.setattr(browser, "_PATIENCE_S", 0.4)
    monkeypatch.setattr(browser, "_LIMIT_S", dict.fromkeys(browser._LIMIT_S, 0.2))


# --- frames and acknowledgements


def test_frames_are_decoded_and_run_by_the_time_of_the_browser(camera, show):
    page = show(frames=[jpeg(10), jpeg(120), jpeg(240)])
    with camera.source() as source:
        assert source.is_live and source.name == BROWSER
        frames = iter(source)
        shown = [next(frames) for _ in range(3)]
    assert [frame.shape for frame, _ in shown] == [(48, 64, 3)] * 3 and shown[0][0].dtype == np.uint8
    assert np.allclose([frame.mean() for frame, _ in shown], [10, 120, 240], atol=2)
    assert np.allclose([time_s for _, time_s in shown], [0, 0.04, 0.08])
    assert page.acks() == [0, 1, 2]
    wait_for(lambda: not page.capturing)


def test_a_slow_reader_holds_one_frame_and_gets_the_newest(camera, show):
    page = show(frames=[jpeg(shade) for shade in range(0, 200, 10)])
    with camera.source() as source:
        wait_for(lambda: camera.received == 20)  # nobody read: each was acknowledged, none is kept but the last
        frames = iter(source)
        next(frames)
        assert next(frames)[0].mean() == pytest.approx(190, abs=2)
    assert page.acks() == list(range(20))


def test_a_clock_that_goes_back_does_not_turn_time_back(camera, show):
    page = show(frames=[jpeg()])
    with camera.source() as source:
        frames = iter(source)
        times = [next(frames)[1]]
        for clock_ms in (5500.0, 100.0, 5600.0):
            page.tell("frame", [jpeg()], seq=9, time=clock_ms)
            times.append(next(frames)[1])
    assert times == sorted(times) and times[-1] == pytest.approx(0.56)


@pytest.mark.parametrize("broken", [b"", b"no frame", jpeg()[:40]], ids=["empty", "text", "cut off"])
def test_a_broken_frame_is_acknowledged_and_counted(broken, camera, show):
    page = show(frames=[broken, jpeg(10), broken, jpeg(20)])
    with camera.source() as source:
        wait_for(lambda: camera.received == 4)
        frames = iter(source)
        while next(frames)[0].mean() < 15:
            pass
    assert camera.broken >= 1 and page.acks() == [0, 1, 2, 3]


@pytest.mark.parametrize("more", [{}, {"time": None}, {"time": "soon"}], ids=["no time", "null", "words"])
def test_a_message_that_makes_no_sense_is_acknowledged_and_counted(more, camera, show):
    page = show()
    with camera.source() as source:
        page.frames = iter([])
        wait_for(lambda: len(page.acks()) == page.seq)
        page.tell("frame", [jpeg()], seq=700, **more)
        page.tell("frame", [], seq=701, time=1e4)
        wait_for(lambda: page.acks()[-2:] == [700, 701])
        assert camera.broken == 2 and next(iter(source))[0].shape == (48, 64, 3)


def test_a_size_that_changes_goes_through(camera, show):
    show(frames=[jpeg(size=(48, 64)), jpeg(size=(64, 48)), jpeg(size=(1, 1))])
    with camera.source() as source:
        frames = iter(source)
        assert [next(frames)[0].shape[:2] for _ in range(3)] == [(48, 64), (64, 48), (1, 1)]


# --- who may send


def test_only_the_first_of_two_pages_opens_its_camera(camera, show):
    page = show(frames=[jpeg()])
    with camera.source():
        page.tell("here", page="page-2")  # another window with the same notebook
        page.tell("frame", [jpeg()], page="page-2", seq=9, time=0.0)
        wait_for(lambda: len([m for m in page.heard if m.get("page") == "page-2"]) == 2)
    goes = [message["page"] for message in page.heard if message["kind"] == "go"]
    assert goes == ["page-1"] and {"kind": "stop", "page": "page-2", "run": 1} in page.heard
    assert camera.received == 1 and page.acks() == [0]


def test_a_frame_of_an_earlier_start_is_not_taken_and_its_camera_is_stopped(camera, show):
    page = show()
    camera.source().close()
    wait_for(lambda: not page.capturing)
    page.frames = iter([jpeg(200)])
    with camera.source() as source:
        page.tell("frame", [jpeg(50)], run=1, seq=0, time=0.0)
        assert next(iter(source))[0].mean() == pytest.approx(200, abs=2)
    assert camera.received == 1 and any(m["kind"] == "stop" and m["run"] == 1 for m in page.heard)


# --- faults: each in words, the camera given back, and Start works again


@pytest.mark.parametrize("name", [*PROBLEMS, "OddError"])
def test_what_the_browser_says_becomes_words(name, camera, show):
    page = show(refusal=name)
    with pytest.raises(SourceError) as error:
        camera.source()
    assert str(error.value) == PROBLEMS.get(
        name, "The browser cannot use the camera: as the browser says (OddError). Press Start again."
    )
    page.refusal = None
    with camera.source() as source:
        assert next(iter(source))[0].shape == (48, 64, 3)


def test_without_a_page_it_gives_up(camera, show, short):
    show(visible=False)
    with pytest.raises(SourceError, match="No page with this panel answered"):
        camera.source()


def test_a_question_that_nobody_answers_is_given_up(camera, show, short):
    said = []
    page = show(refusal="later")
    with pytest.raises(SourceError, match="Nobody answered the browser's question"):
        camera.source(say=said.append)
    assert said[0].startswith("Looking for the page") and "Waiting for permission in the browser" in said[1]
    wait_for(lambda: page.heard[-1]["kind"] == "stop")


@pytest.mark.parametrize("frames", [[jpeg()], [jpeg(), *[b"broken"] * 300]], ids=["no frame", "broken ones"])
def test_frames_that_stay_away_are_a_stall(frames, camera, show, short):
    page = show(frames=frames)
    with camera.source() as source, pytest.raises(SourceError, match="stalled: no frame that can be read"):
        for _ in source:
            pass
    wait_for(lambda: not page.capturing)


@pytest.mark.parametrize(
    "last_frames_s, said",
    [(2.0, "closed or reloaded"), (0.0, "stalled")],
    ids=["its farewell did not get through", "it stayed"],
)
def test_a_page_that_meant_to_leave_and_fell_silent(last_frames_s, said, camera, show, short, monkeypatch):
    monkeypatch.setattr(browser, "_LAST_FRAMES_S", last_frames_s)
    page = show(frames=[jpeg()])
    with camera.source() as source:
        page.tell("leaving")
        page.tell("frame", [jpeg()], seq=1, time=9e3)  # one more was under way
        with pytest.raises(SourceError, match=said):
            list(source)


def test_a_cell_that_keeps_the_kernel_busy_is_waited_for(camera, show, short, monkeypatch):
    monkeypatch.setattr(browser, "_PATIENCE_S", 30)
    page = show(frames=[jpeg(10)])
    with camera.source() as source:
        frames = iter(source)
        next(frames)
        camera._on_cell()
        later = threading.Timer(0.6, lambda: page.tell("frame", [jpeg(200)], seq=1, time=9e3))
        later.start()
        assert next(frames)[0].mean() == pytest.approx(200, abs=2), "longer than the limit of 0.2 s"
        later.join()
        camera._on_cell_done()
        with pytest.raises(SourceError, match="stalled"):
            next(frames)


def test_short_cells_in_a_row_do_not_hide_a_stall(camera, show, short, monkeypatch):
    monkeypatch.setattr(browser, "_PATIENCE_S", 30)
    show(frames=[jpeg()])
    over = threading.Event()

    def run_cells():
        while not over.wait(0.03):
            camera._on_cell()
            over.wait(0.03)
            camera._on_cell_done()

    cells = threading.Thread(target=run_cells)
    with camera.source() as source:
        cells.start()
        try:
            with pytest.raises(SourceError, match="stalled.* for [0-9] s"):  # not the 30 s of a long cell
                list(source)
        finally:
            over.set()
            cells.join()


# --- whether anybody is there


def ask(camera, page, times=1):
    for _ in range(times):
        camera.ask_pages()
        page.take_in()


def test_a_page_that_answers_is_there_and_nobody_is_missed_who_never_was(camera, show):
    page = show(visible=False)
    ask(camera, page, 3 * UNANSWERED)
    assert not camera.abandoned, "a notebook that is run without a page"
    page.visible = True
    ask(camera, page, 3 * UNANSWERED)
    assert not camera.abandoned


def test_a_page_is_gone_after_some_questions_and_may_come_back(camera, show):
    page = show()
    ask(camera, page)
    page.visible = False
    ask(camera, page, UNANSWERED)
    assert not camera.abandoned, "patience"
    ask(camera, page)
    assert camera.abandoned
    page.visible = True
    ask(camera, page)
    assert not camera.abandoned


def test_the_last_of_two_pages_counts(camera, show):
    page = show()
    ask(camera, page)
    page.tell("present", page="page-2")
    page.tell("left")
    assert not camera.abandoned
    page.tell("left", page="page-2")
    assert camera.abandoned
    camera.forget_pages()
    assert not camera.abandoned, "another Start"


def test_questions_count_only_when_no_cell_runs(camera, show):
    """The kernel of Colab or VS Code reads no answer while a cell runs."""
    page = show()
    ask(camera, page)
    page.visible = False
    camera._on_cell()
    ask(camera, page, 3 * UNANSWERED)
    assert not camera.abandoned
    camera._on_cell_done()
    ask(camera, page, UNANSWERED + 1)
    assert camera.abandoned


def test_questions_count_while_a_cell_runs_where_answers_came_meanwhile(camera, show):
    page = show()
    camera._on_cell()
    ask(camera, page)
    page.visible = False
    ask(camera, page, UNANSWERED + 1)
    assert camera.abandoned


# --- in the panel


@pytest.fixture
def panel(tmp_path):
    panel = LivePanel(pipeline.Pipeline(None, None, None), folder=tmp_path / "out")
    panel.source.value = BROWSER
    yield panel
    panel.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("live-")]


@pytest.fixture
def page(panel):
    page = Page(panel.camera)
    yield page
    page.leave()


def stops(panel, page, words):
    """Everything was given back: buttons, threads, camera; the status has the words."""
    wait_for(lambda: not panel.start.disabled and not panel.session.running)
    assert words in panel.session.status and panel.stop.disabled
    wait_for(lambda: not page.capturing)


def starts(panel, page):
    before = panel.session.latest
    panel.start.click()
    wait_for(lambda: panel.session.latest is not before and page.capturing)


def test_start_stop_and_again(panel, page):
    for _ in range(3):
        starts(panel, page)
        panel.start.click()  # a second one does nothing
        assert panel.session.state == "running" and "browser's camera" in panel.session.status
        panel.stop.click()
        stops(panel, page, "Stopped; the browser's camera is closed.")
    assert [m["kind"] for m in page.heard].count("go") == 3


def test_stop_while_the_person_has_not_answered(panel, page):
    page.refusal = "later"
    panel.start.click()
    wait_for(lambda: "Waiting for permission" in panel.status.value)
    assert panel.session.state == "starting" and not panel.stop.disabled
    panel.stop.click()
    stops(panel, page, "Stopped")
    assert page.heard[-1]["kind"] == "stop"  # an answer that comes now opens nothing
    page.refusal = None
    starts(panel, page)


def test_start_after_stop_while_the_person_has_not_answered(panel, page):
    page.refusal = "later"
    panel.start.click()
    wait_for(lambda: "Waiting for permission" in panel.session.status)
    page.refusal = None
    panel.session.stop(wait=False)
    panel.begin()
    wait_for(lambda: panel.session.state == "running" and page.capturing)


@pytest.mark.parametrize("name", ["ended", "gone", "closed"])
def test_a_camera_that_goes_mid_stream(name, panel, page):
    starts(panel, page)
    page.capturing = False
    page.tell("failed", name=name)
    wait_for(lambda: panel.session.state == "failed")
    stops(panel, page, PROBLEMS[name])
    starts(panel, page)


def test_an_error_in_the_pipeline_stops_the_camera_though_no_frame_comes(panel, page, monkeypatch):
    page.frames = iter([jpeg()])
    monkeypatch.setattr(panel.session.pipeline, "step", lambda *_: 1 / 0)
    panel.start.click()
    wait_for(lambda: panel.session.state == "failed")
    stops(panel, page, "ZeroDivisionError")


def test_record_pause_snapshot_and_mirror_work_with_it(panel, page, tmp_path):
    starts(panel, page)
    panel.record.value = panel.mirror.value = True
    recorded_from = panel.session.latest.number
    wait_for(lambda: panel.session.latest.number > recorded_from + 5)
    assert panel.save_snapshot().exists()
    panel.record.value = False
    (film,) = (tmp_path / "out").glob("*.mp4")
    assert cv2.VideoCapture(str(film)).read()[0]
    panel.pause.value = True
    wait_for(lambda: "Paused" in panel.status.value)


def test_a_closed_panel_stops_the_camera(panel, page):
    starts(panel, page)
    panel.close()
    wait_for(lambda: not page.capturing)
    assert panel.camera.comm is None and not panel.session.running


def test_closing_the_widget_alone_ends_the_run_in_words(panel, page):
    starts(panel, page)
    panel.camera.close()
    wait_for(lambda: panel.session.state == "failed")
    stops(panel, page, "closed with its panel")


# --- a camera of the kernel, and the page that shows the panel


@pytest.fixture
def network_camera(panel, page, monkeypatch):
    """The panel's source; the page is asked often."""
    monkeypatch.setattr(panel_module, "ASK_EVERY_S", 0.2)
    with ip_camera() as camera:
        panel.source.value, panel.address.value = panel_module.ANOTHER, camera.address + "/endless"
        yield camera


def starts_in_the_kernel(panel, page):
    page.sent.clear()
    panel.start.click()
    wait_for(lambda: panel.session.latest is not None and page.sent)  # it was asked, and answered


def test_a_page_that_answers_keeps_a_camera_of_the_kernel_running(panel, page, network_camera):
    starts_in_the_kernel(panel, page)
    wait_for(lambda: len(page.sent) > 3 * UNANSWERED)
    assert panel.session.state == "running" and network_camera.viewers == 1


@pytest.mark.parametrize("farewell", [True, False], ids=["closed or reloaded", "crashed"])
def test_a_page_that_goes_gives_a_camera_of_the_kernel_back(farewell, panel, page, network_camera, tmp_path):
    starts_in_the_kernel(panel, page)
    panel.record.value = True
    wait_for(lambda: any(path.stat().st_size > 0 for path in (tmp_path / "out").glob("*.mp4")))
    page.visible = False
    if farewell:
        page.tell("left")
    stops(panel, page, f"is closed. {ABANDONED}")
    wait_for(lambda: network_camera.viewers == 0)
    (film,) = (tmp_path / "out").glob("*.mp4")
    assert count_frames(film) > 0, "what was recorded plays"

    page.visible = True
    starts_in_the_kernel(panel, page)
    panel.stop.click()
    wait_for(lambda: not panel.session.running)
    assert panel.session.status.endswith("is closed."), "this time the person stopped it"


def test_without_a_page_a_camera_of_the_kernel_goes_on(panel, page, network_camera):
    """The cell was run by a program."""
    page.visible = False
    panel.start.click()
    wait_for(lambda: [m["kind"] for m in page.heard].count("ask") > 2 * UNANSWERED)
    assert panel.session.state == "running"


def test_the_camera_of_the_page_is_not_asked_for(panel, page, network_camera):
    """It ends with its page anyway, and sooner."""
    panel.source.value = BROWSER
    starts(panel, page)
    wait_for(lambda: page.seq > 100)  # half a second at least
    assert "ask" not in [m["kind"] for m in page.heard]


# --- through a real kernel


class KernelPage(Kernel):
    """Plays the page with a kernel's client: real messages, real buffers, in a subshell as JupyterLab sends them."""

    def prepare(self):
        code = (
            "import time, threading\nfrom helpers.live import pipeline, panel as panel_module\n"
            "from helpers.live.panel import LivePanel\n"
        )
        self.run(code + f"panel = LivePanel(pipeline.Pipeline(None, None, None)); panel.source.value = {BROWSER!r}")
        found = self.run("print(panel.camera.model_id, panel.start.model_id, panel.stop.model_id)")[0]
        self.camera, self.start, self.stop = re.findall(r"[0-9a-f]{32}", found)
        session, control = self.client.session, self.client.control_channel
        control.send(session.msg("create_subshell_request", {}))
        self.subshell = control.get_msg(timeout=30)["content"]["subshell_id"]

    def show_an_address(self, address):
        self.run(
            f"panel_module.ASK_EVERY_S = 0.1; panel.source.value = {panel_module.ANOTHER!r}\n"
            f"panel.address.value = {address!r}"
        )

    def tell(self, comm, data, buffers=None):
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        if self.subshell:
            message["header"]["subshell_id"] = self.subshell
        self.client.session.send(self.client.shell_channel.socket, message, buffers=buffers)

    def press(self, button):
        self.tell(button, {"method": "custom", "content": {"event": "click"}})

    def say(self, buffers=None, **content):
        self.tell(self.camera, {"method": "custom", "content": {"page": "p", **content}}, buffers)

    def begin(self, code) -> None:
        """Returns when the cell runs."""
        self.client.execute(code)
        while self.client.get_iopub_msg(timeout=30)["msg_type"] != "execute_input":
            pass

    def hear(self, kind) -> dict:
        """The next message of that kind to the page."""
        while True:
            message = self.client.get_iopub_msg(timeout=30)
            content = message["content"]
            assert message["msg_type"] != "error", content
            if message["msg_type"] == "comm_msg" and content["comm_id"] == self.camera:
                told = content["data"].get("content", {})
                if told.get("kind") == kind:
                    return told


@pytest.fixture
def kernel():
    kernel = KernelPage()
    yield kernel
    if kernel.manager.has_kernel:
        kernel.close()


def test_in_a_kernel_frames_go_on_while_a_cell_runs(kernel, tmp_path):
    kernel.prepare()
    kernel.run(f"import atexit, pathlib; atexit.register(pathlib.Path({str(tmp_path / 'ended')!r}).touch)")
    kernel.press(kernel.start)
    run = kernel.hear("start")["run"]
    kernel.say(kind="here", run=run)
    assert kernel.hear("go")["page"] == "p"
    kernel.say(kind="open", run=run)
    kernel.say([jpeg()], kind="frame", run=run, seq=0, time=0)
    assert kernel.hear("ack")["seq"] == 0
    flag = "cell_is_over"
    cell = kernel.client.execute(f"{flag} = False; time.sleep(2); {flag} = True")
    for seq in range(1, 11):
        kernel.say([jpeg(20 * seq)], kind="frame", run=run, seq=seq, time=40.0 * seq)
        assert kernel.hear("ack")["seq"] == seq
    kernel.press(kernel.stop)
    assert kernel.hear("stop")["run"] == run
    while (message := kernel.client.get_shell_msg(timeout=30))["parent_header"].get("msg_id") != cell:
        pass
    assert message["content"]["status"] == "ok"
    text = kernel.run(
        "print(panel.camera.received, panel.session.status, "
        "[t.name for t in threading.enumerate() if t.name.startswith('live-')])"
    )[0]
    assert text == "11 Stopped; the browser's camera is closed. []\n"
    kernel.press(kernel.start)
    assert kernel.hear("start")["run"] == run + 1
    kernel.close()
    assert (tmp_path / "ended").exists(), "shut down while it waits for the page: Jupyter had to kill nobody"


def test_in_a_kernel_a_page_that_is_silent_during_a_cell_is_not_missed(kernel):
    """A frontend without subshells, such as Colab or VS Code; afterwards it is missed."""
    kernel.prepare()
    kernel.subshell = None
    with ip_camera() as camera:
        kernel.show_an_address(camera.address + "/endless")
        kernel.press(kernel.start)
        kernel.hear("ask")
        kernel.say(kind="present")
        asked = "panel.camera.send = lambda told, send=panel.camera.send: (questions.append(told), send(told))"
        text, _ = kernel.run(
            f"questions = []; {asked}\nwhile len(questions) < {4 * UNANSWERED}: time.sleep(0.05)\n"
            "print(panel.session.state)"
        )
        assert text == "running\n" and camera.viewers == 1
        wait_for(lambda: camera.viewers == 0, 30)
        assert ABANDONED in kernel.run("print(panel.session.status)")[0]


def test_in_a_kernel_a_page_that_leaves_during_a_cell_is_missed_at_once(kernel):
    """JupyterLab's messages come while a cell runs."""
    kernel.prepare()
    with ip_camera() as camera:
        kernel.show_an_address(camera.address + "/endless")
        kernel.press(kernel.start)
        kernel.hear("ask")
        kernel.say(kind="present")
        kernel.begin("while panel.session.running: time.sleep(0.05)")
        kernel.say(kind="left")
        wait_for(lambda: camera.viewers == 0, 30)
        assert ABANDONED in kernel.run("print(panel.session.status)")[0]


# --- the page's half


@pytest.mark.skipif(not shutil.which("node"), reason="no node on PATH to read JavaScript")
def test_the_module_of_the_page_is_javascript(tmp_path):
    module = tmp_path / "browser.mjs"
    shutil.copy(browser.__file__.replace(".py", ".js"), module)
    assert subprocess.run(["node", "--check", module], capture_output=True, text=True).stderr == ""


def test_the_page_and_the_kernel_know_the_same_words(camera):
    names = set(re.findall(r'fail\([\w.?]+, "(\w+)"', camera._esm))
    assert names and names <= set(PROBLEMS)
