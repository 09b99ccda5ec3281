"""The live panel in plain Python and inside a real kernel, where other cells must run while it
streams.
"""

from __future__ import annotations

import re
import threading

import cv2
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from live_tools import ip_camera, wait_for

from helpers.data.paths import REPOSITORY
from helpers.live import pipeline, recording, results
from helpers.live.panel import LARGEST_WIDTH, LivePanel, bars, to_jpeg


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two seconds that get brighter."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with recording.VideoWriter(path) as writer:
        for number in range(50):
            writer.write(np.full((240, 320, 3), 5 * number, np.uint8))
    return path


@pytest.fixture
def panel(tmp_path):
    panel = LivePanel(pipeline.Pipeline(None, None, None), folder=tmp_path / "out")
    yield panel
    panel.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("live-")]


def choose(panel, path):
    panel.source.value = "another"
    panel.address.value = str(path)


def test_start_shows_images_and_stop_gives_the_buttons_back(panel, clip):
    choose(panel, clip)
    before = panel.image.value
    panel.start.click()
    wait_for(lambda: panel.image.value != before)
    assert panel.start.disabled and not panel.stop.disabled
    panel.stop.click()
    wait_for(lambda: not panel.start.disabled)
    assert panel.stop.disabled and "clip.mp4 is closed" in panel.status.value


def test_no_button_waits_for_a_camera(panel):
    with ip_camera() as camera:
        choose(panel, camera.address + "/silent")
        for _ in range(3):
            panel.start.click()
            assert panel.session.state == "starting", "the camera never answers, and the button is done"
            panel.stop.click()
        wait_for(lambda: not panel.session.running, 30)
        wait_for(lambda: camera.viewers == 0)


def test_the_end_of_a_file_is_shown_and_start_works_again(panel, clip):
    choose(panel, clip)
    for _ in range(2):
        panel.start.click()
        wait_for(lambda: not panel.start.disabled and "closed" in panel.status.value)
        image = cv2.imdecode(np.frombuffer(panel.image.value, np.uint8), cv2.IMREAD_COLOR)
        assert image[200:].mean() > 235, "the last image is the one that stays"
        assert "frames a second" in panel.speed.value


def test_the_models_threshold_is_a_place_on_the_slider(tmp_path):
    """A browser moves a value to the slider's next step and sends it back; thresholds are rounded to hundredths."""
    panel = LivePanel(pipeline.Pipeline.load(), folder=tmp_path)
    threshold, slider = panel.session.pipeline.action.threshold, panel.threshold
    panel.close()
    assert slider.value == threshold and slider.value / slider.step == pytest.approx(round(slider.value / slider.step))


@pytest.mark.parametrize("source, words", [("97", "camera 97"), ("nowhere.mp4", "nowhere.mp4"), ("", "no source")])
def test_a_source_that_fails_is_said(source, words, panel):
    choose(panel, source)
    panel.start.click()
    wait_for(lambda: words in panel.status.value.lower())
    wait_for(lambda: not panel.start.disabled)


def test_sliders_reach_the_pipeline_and_mirror_the_session(panel):
    panel.threshold.value, panel.smoothing.value, panel.mirror.value = 0.75, 1.2, True
    assert panel.session.pipeline.settings == results.LiveSettings(threshold=0.75, smoothing_s=1.2)
    assert panel.session.mirror


def test_record_and_snapshot(panel, clip, tmp_path):
    choose(panel, clip)
    panel.start.click()
    wait_for(lambda: panel.session.latest is not None)
    panel.record.value = True
    assert panel.session.recording
    recorded_from = panel.session.latest.number
    wait_for(lambda: panel.session.latest.number > recorded_from + 5)
    path = panel.save_snapshot()
    assert cv2.imread(str(path)).shape == (240, 320, 3) and str(path) in panel.status.value
    panel.record.value = False
    (video,) = (tmp_path / "out").glob("*.mp4")
    (timeline,) = (tmp_path / "out").glob("*.csv")
    assert cv2.VideoCapture(str(video)).read()[0]
    assert timeline.read_text(encoding="utf-8").count("\n") > 3


def test_record_and_snapshot_before_start_say_what_to_do(panel):
    panel.record.value = True
    assert not panel.record.value and "press Start first" in panel.status.value
    assert panel.save_snapshot() is None


def test_a_folder_that_cannot_be_written_is_said(panel, clip, tmp_path):
    (tmp_path / "out").touch()
    choose(panel, clip)
    panel.start.click()
    wait_for(lambda: panel.session.latest is not None)
    panel.record.value = True
    assert not panel.record.value and "cannot be written" in panel.session.status
    panel.snapshot.click()
    assert "cannot be written" in panel.session.status and panel.session.running


def test_pause(panel, clip):
    choose(panel, clip)
    panel.start.click()
    wait_for(lambda: panel.session.latest is not None)
    panel.pause.value = True
    wait_for(lambda: "Paused" in panel.status.value)
    panel.pause.value = False
    wait_for(lambda: "closed" in panel.status.value)


def test_a_new_panel_closes_the_one_before(clip):
    first = LivePanel(pipeline.Pipeline(None, None, None))
    choose(first, clip)
    first.start.click()
    wait_for(lambda: first.session.latest is not None)
    second = LivePanel(pipeline.Pipeline(None, None, None))
    assert not first.session.running and first.comm is None
    second.close()


def test_closing_leaves_no_widget_that_a_page_could_still_press(clip):
    panel = LivePanel(pipeline.Pipeline(None, None, None))
    parts = [panel.start, panel.stop, panel.source, panel.mirror, panel.image, panel.action_bars, panel.camera]
    panel.close()
    panel.close()
    assert [part.comm for part in parts] == [None] * len(parts)


def test_viewers_that_show_no_widgets_get_an_image(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"] == "LivePanel()" and "application/vnd.jupyter.widget-view+json" in bundle
    image = cv2.imdecode(np.frombuffer(bundle["image/png"], np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (120, 640, 3) and len(bundle["image/png"]) < 20_000


def test_bars_are_safe_and_complete():
    text = bars("Action: <b>", ("wave_one_hand", "<script>"), np.array([0.25, 0.75]), colour="#000")
    assert "wave one hand" in text and "width:25%" in text and "<script>" not in text
    assert bars("Action", ("a", "b"), np.zeros(0), colour="#000").count("width:0%") == 2


def test_large_images_are_reduced_for_the_browser():
    jpeg = np.frombuffer(to_jpeg(np.zeros((2160, 3840, 3), np.uint8)), np.uint8)
    assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape[1] == LARGEST_WIDTH


def test_models_of_the_fields_are_loaded_at_start(panel, clip, models):
    choose(panel, clip)
    given = panel.session.pipeline
    panel.action_model.value, panel.emotion_model.value = map(str, models)
    panel.start.click()
    wait_for(lambda: not panel.session.running, 30)
    assert panel.session.state == "stopped", panel.session.status
    assert panel.session.pipeline.action.labels == ("run", "sit", "walk") and "walk" in panel.action_bars.value
    assert panel.threshold.value == panel.session.pipeline.action.threshold == 0.0
    loaded = panel.session.pipeline
    panel.action_model.value = "nowhere"
    panel.start.click()
    wait_for(lambda: panel.session.state == "failed")
    assert "nowhere" in panel.session.status and panel.session.pipeline is loaded
    panel.action_model.value = panel.emotion_model.value = ""
    panel.start.click()
    wait_for(lambda: panel.session.state == "stopped")
    assert panel.session.pipeline.action is given.action is None and panel.action_bars.value == ""


def test_two_snapshots_of_one_second_are_two_files(panel, clip):
    choose(panel, clip)
    panel.start.click()
    wait_for(lambda: panel.session.latest is not None)
    paths = [panel.save_snapshot() for _ in range(3)]
    assert len(set(paths)) == 3 and all(cv2.imread(str(path)) is not None for path in paths)
    assert sorted(paths) == sorted(panel.folder.iterdir())


class Kernel:
    """A real Jupyter kernel: runs cells, counts the images that arrive meanwhile."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=REPOSITORY)

    def run(self, code: str) -> tuple[str, int]:
        """What the cell printed, and how many images came while it ran."""
        printed, images = "", 0
        request = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=30)
            content = message["content"]
            assert message["msg_type"] != "error", content
            printed += content.get("text", "") if message["msg_type"] == "stream" else ""
            images += message["msg_type"] == "comm_msg" and bool(message.get("buffers"))
            if message["parent_header"].get("msg_id") == request and content.get("execution_state") == "idle":
                return printed, images

    def click(self, model_id: str) -> None:
        """What the browser sends when a button is pressed."""
        data = {"method": "custom", "content": {"event": "click"}}
        self.client.shell_channel.send(self.client.session.msg("comm_msg", {"comm_id": model_id, "data": data}))

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()


@pytest.fixture
def kernel():
    kernel = Kernel()
    yield kernel
    if kernel.manager.has_kernel:
        kernel.close()


def test_in_a_kernel_other_cells_run_while_it_streams(kernel, tmp_path):
    with ip_camera() as camera:
        kernel.run(f"import atexit, pathlib\natexit.register(pathlib.Path({str(tmp_path / 'ended')!r}).touch)")
        kernel.run(
            "import time, threading\nfrom helpers.live import pipeline\nfrom helpers.live.panel import LivePanel\n"
            "panel = LivePanel(pipeline.Pipeline(None, None, None))\npanel.source.value = 'another'\n"
            f"panel.address.value = {camera.address + '/endless'!r}"
        )
        start, stop = re.findall(r"[0-9a-f]{32}", kernel.run("print(panel.start.model_id, panel.stop.model_id)")[0])
        until_shown = "shown = panel.image.value\nwhile panel.image.value == shown: time.sleep(0.01)\n"
        kernel.click(start)
        text, images = kernel.run(3 * until_shown + "print(6 * 7)")
        assert text == "42\n" and images >= 3, "the panel's image changes while a cell runs"
        kernel.manager.interrupt_kernel()  # reaches the main thread only: the stream goes on
        assert kernel.run("print(panel.session.state)")[0] == "running\n"
        kernel.click(stop)
        text = kernel.run(
            "while any('live-' in thread.name for thread in threading.enumerate()): time.sleep(0.01)\n"
            "print(panel.session.state)"
        )[0]
        assert text == "stopped\n"
        wait_for(lambda: camera.viewers == 0)  # the camera notices when it sends its next image
        kernel.click(start)
        assert kernel.run(until_shown + "print(panel.session.state)")[0] == "running\n"
        kernel.close()
        assert (tmp_path / "ended").exists(), (
            "shut down while it streams: it came to its end, Jupyter had to kill nobody"
        )
