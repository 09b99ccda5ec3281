"""What the tests of the live system share: a network camera, files that lie, and the check that all was given back."""

from __future__ import annotations

import http.server
import itertools
import socket
import socketserver
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from helpers.data.videos import write_video  # noqa: F401  (the tests take it from here)
from helpers.live import pipeline as pipeline_module
from helpers.live import session as session_module
from helpers.live import sources


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def count_frames(path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def scene(portrait: np.ndarray, *places: tuple[int, int]) -> np.ndarray:
    """A 640x360 frame with the portrait at each (x, y)."""
    frame = np.full((360, 640, 3), 90, np.uint8)
    for x, y in places:
        frame[y : y + 240, x : x + 240] = portrait
    return frame


def put(frame, head, x, y):
    """The head, without its background, on the frame; (x, y) is the corner of the head."""
    mask = cv2.ellipse(np.zeros((200, 200), np.float32), (100, 100), (70, 95), 0, 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 3)[..., None]
    part = frame[y : y + 200, x : x + 200]
    part[:] = (mask * head + (1 - mask) * part).astype(np.uint8)


def room(*heads):
    """A 640x480 picture with (head, x, y), later ones in front."""
    frame = np.full((480, 640, 3), 90, np.uint8)
    for head, x, y in heads:
        put(frame, head, x, y)
    return frame


def noise(count: int, shape=(120, 160)) -> list[np.ndarray]:
    """Pictures that no codec makes small, uint8 BGR."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for _ in range(count)]


# --- cameras in the network


class _MjpegHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.viewers += 1
        try:
            self._stream()
        except OSError:  # the viewer hung up
            pass
        finally:
            self.server.viewers -= 1

    def _stream(self):
        kind = self.path.strip("/")
        if kind in ("gone", "stall") and kind in self.server.visited:
            return self.send_error(404)
        self.server.visited.add(kind)
        if kind == "silent":
            return self._until_the_viewer_leaves()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in itertools.count():
            if number == 20 and kind in ("gone", "drops"):
                return None
            if number == 20 and kind == "stall":
                return self._until_the_viewer_leaves()
            shape = (96, 80, 3) if kind == "resize" and number % 20 >= 10 else (48, 64, 3)
            jpeg = cv2.imencode(".jpg", np.full(shape, 10 * (number % 20), np.uint8))[1].tobytes()
            head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
            self.wfile.write(head + jpeg + b"\r\n")
            time.sleep(0.02)

    def _until_the_viewer_leaves(self):
        self.connection.settimeout(60)
        while self.connection.recv(1024):
            pass

    def log_message(self, *_):
        pass


@contextmanager
def ip_camera():
    """A network camera (MJPEG over HTTP) at `camera.address`; `camera.viewers`: open connections.

    /endless shows pictures until the viewer leaves, /resize too, of changing size; /gone hangs up after 20; /stall
    shows 20 and then nothing, without hanging up; both refuse a second visit. /drops hangs up after 20, every time;
    /silent never answers.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _MjpegHandler)
    server.daemon_threads, server.viewers, server.visited = True, 0, set()
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.socket.close()  # server_close would wait for viewers


class _RtspHandler(socketserver.StreamRequestHandler):
    """As little of RTSP (RFC 2326) as FFmpeg asks for, over one TCP connection, and JPEG in RTP (RFC 2435)."""

    SDP = "v=0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\na=framerate:25\r\n"

    def handle(self):
        if self.server.shown:
            return
        try:
            while request := self.rfile.readline().decode():
                headers = {}
                while line := self.rfile.readline().decode().strip():
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                self._answer(request.split()[0], headers.get("cseq", "0"))
        except OSError:  # the viewer hung up
            pass

    def _answer(self, method: str, number: str):
        more = {
            "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(self.SDP)}\r\n",
            "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
        }.get(method, "Session: 1\r\n")
        body = self.SDP if method == "DESCRIBE" else ""
        self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}\r\n{body}".encode())
        if method == "PLAY":
            self.server.shown = True
            for picture in range(30):
                self._send(picture)
                time.sleep(0.02)
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, picture: int):
        frame = np.full((48, 64, 3), 8 * picture, np.uint8)
        jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()
        scan = jpeg[jpeg.index(b"\xff\xda") + 14 :]
        rtp = struct.pack(">BBHII", 0x80, 0x80 | 26, picture, 3600 * picture, 1)
        packet = rtp + struct.pack(">IBBBB", 0, 1, 75, 64 // 8, 48 // 8) + scan
        self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)


@contextmanager
def rtsp_camera():
    """The address of a camera that shows 30 pictures by RTSP and is gone."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _RtspHandler) as server:
        server.daemon_threads, server.shown = True, False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"rtsp://user:secret@127.0.0.1:{server.server_address[1]}/live"
        server.shutdown()
        thread.join()


# --- a session and what it must give back


class Probe:
    """Opens real sources and keeps them, so that a test can see that each was closed."""

    def __init__(self, delay_s=0.0):
        self.sources, self.delay_s = [], delay_s

    def __call__(self, address):
        time.sleep(self.delay_s)
        source = sources.open_source(address)
        self.sources.append(source)
        return source


def idle_pipeline() -> pipeline_module.Pipeline:
    """Without models: what is tested round it is the same."""
    return pipeline_module.Pipeline(None, None, None)


def live_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("live-")]


@contextmanager
def session_for(pipeline=None, camera=None, **probe):
    """A session; whatever happened to it, at the end it must have given everything back."""
    session = session_module.LiveSession(pipeline or idle_pipeline(), Probe(**probe))
    yield session
    assert_given_back(session, camera)


def assert_given_back(session: session_module.LiveSession, camera=None) -> None:
    """Stop ends it: every source closed, every recording finished, no thread left, no connection to `camera` open."""
    assert session.stop() and not session.running and not session.recording
    assert all(source.closed for source in session._opener.sources)
    assert live_threads() == []
    if camera is not None:
        wait_for(lambda: camera.viewers == 0)


def assert_starts_again(session: session_module.LiveSession, clip: Path) -> None:
    session.latest, session.pipeline = None, idle_pipeline()
    assert session.start(clip)
    wait_for(lambda: session.latest is not None)
    assert session.state == "running" and session.status == f"Running: {clip.name}."
    assert session.stop() and session.status == f"Stopped; {clip.name} is closed."
