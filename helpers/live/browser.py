"""The camera of the browser as a source, for a kernel on another machine (JupyterHub, Colab, a server)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import anywidget
import cv2
import numpy as np
from IPython import get_ipython

from helpers.errors import SourceError
from helpers.live.cameras import STALL_S
from helpers.live.sources import Source

BROWSER = "the browser's camera"
_LARGEST_SIDE = 640  # pixels of what is sent
_QUALITY = 0.8  # of the JPEG, 0..1
_PATIENCE_S = 120.0  # for a person who is asked for permission, or for a cell that keeps the kernel busy
_ANSWER_S = 15.0  # for the page to say that it is there
ASK_EVERY_S = 5.0  # whether a page is still there
UNANSWERED = 4  # questions in a row, and a page is gone: after 20 to 25 s
_LAST_FRAMES_S = 2.0  # a page that closes goes on sending for a moment
_AGAIN = "Then press Start again."
PROBLEMS = {  # names of DOMException (W3C Media Capture and Streams) and of browser.js
    "NotAllowedError": "The browser may not use the camera. Click the camera or lock sign beside the page's address, "
    f"allow the camera, and reload the page if the browser says so. {_AGAIN}",
    "SecurityError": "The browser's settings forbid cameras. Allow them for this page. " + _AGAIN,
    "NotFoundError": "The browser finds no camera. Plug one in or switch it on. " + _AGAIN,
    "NotReadableError": "The camera is there but gives no frame to the browser: another program uses it. Close "
    f"the video call or whatever it is. {_AGAIN}",
    "insecure": "The browser gives the camera only to a secure page: open the notebook by an https:// address or as "
    "http://localhost, not by another http:// address. " + _AGAIN,
    "ended": "The camera was taken away from the page: unplugged, switched off, or its permission revoked. Give it "
    f"back. {_AGAIN}",
    "gone": "The page with the panel was closed or reloaded; the camera is released. Show the panel. " + _AGAIN,
    "closed": "The panel is not on the page any more; the camera is released. Show it again. " + _AGAIN,
    "silent": "The kernel did not answer the page; the camera is released. Press Start again.",
}


# What is waited for, by the state of a run: said meanwhile, for how long, said when it was too long.
_WAITING = {
    "starting": "Looking for the page with this panel …",
    "asking": "Waiting for permission in the browser: it asks whether this page may use the camera. Choose Allow.",
    "open": "The browser's camera is on, the first frame comes …",
}


_LIMIT_S = {"starting": _ANSWER_S, "asking": _PATIENCE_S, "open": _ANSWER_S, "running": 0.9 * STALL_S}
_GIVEN_UP = {
    "starting": "No page with this panel answered for {:.0f} s. Show the panel in the browser (run its cell again; if "
    "that does not help, reload the page), then press Start.",
    "asking": "Nobody answered the browser's question for {:.0f} s. Press Start again and choose Allow.",
    "open": "The browser's camera gave no frame that can be read for {:.0f} s ({broken} were broken). Check whether "
    "it is covered or switched off, then press Start.",
    "running": "The browser's camera stalled: no frame that can be read for {:.0f} s. Check whether the page is "
    "open, the network is up and the camera on, then press Start.",
}


class BrowserCamera(anywidget.AnyWidget):
    """The camera of whoever looks at this widget; `source` makes a `Source` of it, one at a time.

    The widget must be displayed: a page that does not show it does not open the camera. With several
    pages the first that answers is taken.

    received: frames of the last run that came. broken: how many of them were no JPEG.
    """

    _esm = Path(__file__).with_suffix(".js")

    def __init__(self):
        self._changed = threading.Condition()
        self._runs, self._run = 0, None
        self._pages: dict[str, int] = {}  # the pages that answered, and how many questions each left unanswered since
        self._met = self._hears_in_cells = False
        self.received = self.broken = 0
        super().__init__()
        self.on_msg(self._receive)
        self._shell = get_ipython()
        self._cell_runs = self._shell is not None  # the one that makes this widget
        if self._shell:
            self._shell.events.register("pre_run_cell", self._on_cell)
            self._shell.events.register("post_run_cell", self._on_cell_done)

    def __repr__(self) -> str:
        return "BrowserCamera()"

    def source(
        self,
        stopping: threading.Event | None = None,
        say: Callable[[str], None] = lambda words: None,
    ) -> Source:
        """A live source of uint8 BGR frames of at most 640 pixels a side; returns with the first one.

        stopping: when set, waiting and the frames end, within a tenth of a second. say: called with a
            sentence for people when there is something to wait for.
        Raises SourceError in plain words: no page, no permission, no camera, no secure page.
        """
        with self._changed:
            self._runs += 1
            run = self._run = _Run(self._runs)
            self.received = self.broken = 0
        frames = self._frames(run, stopping or threading.Event(), say)
        return Source(BROWSER, frames, lambda: self._release(run), is_live=True)

    def forget_pages(self) -> None:
        """Begin to watch anew: until a page answers, there is none to be missed."""
        with self._changed:
            self._pages, self._met = {}, False

    def ask_pages(self) -> None:
        """Ask who shows this widget; to be called every 5 s. Returns at once, the answers come later.

        Questions are counted, not seconds: a computer that slept, or a kernel that stood still, asks once more. Those
        asked while a cell runs count only where messages of the page are known to come meanwhile.
        """
        with self._changed:
            if self._hears_in_cells or not self._cell_runs:
                self._pages = {page: left + 1 for page, left in self._pages.items() if left < UNANSWERED}
        self.send({"kind": "ask"})

    @property
    def abandoned(self) -> bool:
        """Whether there were pages that showed this widget, and all of them left or fell silent."""
        with self._changed:
            return self._met and not self._pages

    def close(self) -> None:
        """End the run, take the widget off the page; safe to call again."""
        run = self._run
        if run is not None:
            run.end("The browser's camera was closed with its panel.")
            self._release(run)
        shell, self._shell = self._shell, None
        if shell:
            shell.events.unregister("pre_run_cell", self._on_cell)
            shell.events.unregister("post_run_cell", self._on_cell_done)
        super().close()

    def _on_cell(self, _info=None) -> None:
        self._cell_runs = True

    def _on_cell_done(self, _result=None) -> None:
        self._cell_runs = False

    # --- frames, in the thread that reads the source

    def _frames(self, run, stopping, say) -> Iterator[tuple[np.ndarray, float]]:
        start, shown = None, 0.0
        self.send({"kind": "start", "run": run.number})
        while (item := self._wait(run, stopping, say)) is not None:
            jpeg, time_ms = item
            frame = _decode(jpeg)
            if frame is None:
                self.broken += 1
                continue
            run.state = "running"
            run.wait_anew()
            start = time_ms if start is None else start
            shown = max(shown, (time_ms - start) / 1e3)
            yield frame, shown

    def _wait(self, run, stopping, say) -> tuple[bytes, float] | None:
        """The newest frame and its time in milliseconds; None when it shall end."""
        with self._changed:
            while not run.newest:
                if stopping.is_set():
                    return None
                if run.problem:
                    raise SourceError(run.problem)
                if run is not self._run:
                    raise SourceError("The browser's camera was started once more, elsewhere.")
                if run.is_new_state() and run.state in _WAITING:
                    say(_WAITING[run.state])
                run.go_on(self._cell_runs)
                if run.idle_s > _LIMIT_S[run.state] or run.waited_s > _PATIENCE_S:
                    if run.was_leaving:
                        raise SourceError(PROBLEMS["gone"])
                    raise SourceError(_GIVEN_UP[run.state].format(run.waited_s, broken=self.broken))
                self._changed.wait(0.1)
            return run.newest.pop()

    def _release(self, run: _Run) -> None:
        with self._changed:
            if self._run is run:
                self._run = None
        self.send({"kind": "stop", "run": run.number})

    # --- messages, in a thread of the kernel

    def _receive(self, _, content: dict, buffers: list) -> None:
        """Take a message of the page. The answer goes out at once and from here: ipykernel sends a widget's
        messages to the subshell from which it was answered, so that they pass while a cell runs.
        """
        kind, number, page = (content.get(key) for key in ("kind", "run", "page"))
        with self._changed:
            self._hears_in_cells = self._hears_in_cells or self._cell_runs
            if kind in ("present", "left"):
                return self._count(kind, page)
            run = self._run
            free = run is not None and run.page is None and kind == "here"
            if run is None or run.number != number or not (free or run.page == page):
                answer = {"kind": "stop", "page": page}
            elif kind == "here":
                run.page, run.state = page, "asking"
                answer = {"kind": "go", "page": page, "side": _LARGEST_SIDE, "quality": _QUALITY}
            else:
                answer = self._take(run, kind, content, buffers)
            self._changed.notify_all()
        if answer:
            self.send({**answer, "run": number})

    def _count(self, kind: str, page: str) -> None:
        if kind == "present":
            self._met, self._pages[page] = True, 0
        else:
            self._pages.pop(page, None)

    def _take(self, run: _Run, kind: str, content: dict, buffers: list) -> dict | None:
        if kind == "open":
            run.state = kind
        elif kind == "failed":
            name, message = content.get("name"), content.get("message") or "no reason given"
            run.end(PROBLEMS.get(name, f"The browser cannot use the camera: {message} ({name}). Press Start again."))
        elif kind == "leaving":
            run.leaving_at = time.monotonic()
        elif kind == "frame":
            self.received += 1
            when = content.get("time")
            if buffers and isinstance(when, int | float):
                run.newest.append((bytes(buffers[0]), float(when)))
            else:
                self.broken += 1
            return {"kind": "ack", "seq": content.get("seq")}
        return None


class _Run:
    """One Start: its number, the page that answered, the newest frame, and why it ended, if it did.

    waited_s: since the last good frame or change of state; idle_s: the part of it in which no cell ran.
    leaving_at: when the page said that it would be closed; it may stay all the same.
    """

    def __init__(self, number: int):
        self.number, self.page, self.state, self.problem = number, None, "starting", ""
        self.leaving_at = -np.inf
        self.newest: deque[tuple[bytes, float]] = deque(maxlen=1)  # JPEG, capture time in milliseconds
        self._seen = None
        self.wait_anew()

    def wait_anew(self) -> None:
        self.waited_s, self.idle_s, self._now = 0.0, 0.0, time.monotonic()

    def go_on(self, cell_runs: bool) -> None:
        """Count the time since the last call."""
        before, self._now = self._now, time.monotonic()
        self.waited_s += self._now - before
        if not cell_runs:
            self.idle_s += self._now - before

    def is_new_state(self) -> bool:
        """Whether what is waited for changed; the waiting then counts from now."""
        if self.state == self._seen:
            return False
        self._seen = self.state
        self.wait_anew()
        return True

    @property
    def was_leaving(self) -> bool:
        """Whether the last good frame came before the page said that it would be closed, or just after."""
        return self._now - self.waited_s < self.leaving_at + _LAST_FRAMES_S

    def end(self, problem: str) -> None:
        self.problem = self.problem or problem


def _decode(jpeg: bytes) -> np.ndarray | None:
    """A uint8 BGR frame; None when these bytes are none."""
    try:
        return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no bytes at all
        return None
