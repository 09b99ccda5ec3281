"""Labelled clips from a camera: a folder per class with its groups.csv, ready to train from."""

from __future__ import annotations

import csv
import io
import math
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from helpers.data.files import GROUPS_FILE, VIDEO_SUFFIXES, read_csv, subfolders, visible_entries
from helpers.data.folders import group_of_name
from helpers.data.outputs import OutputFile
from helpers.errors import DataError
from helpers.live.overlay import draw_banner
from helpers.live.recording import VideoWriter
from helpers.live.run import arriving_frames
from helpers.live.sources import open_source
from helpers.live.window import open_window

COUNTDOWN_S = 3.0  # before every clip: time to get into place
_LONGEST_GAP_S = 1.0  # between two frames of one clip; after more it is recorded again
_COLUMNS = ("label", "file", "group")
_OWN_NAME = re.compile(r"(.+)-\d+\.mp4")


class ClipCapture:
    """Cuts labelled clips out of a stream of frames: countdown, recording, and again, until `count` are saved.

    folder: of the data set; clips become <folder>/<label>/<person>-<number>.mp4, and groups.csv puts the clips of a
    person into one group. label, person: words of letters, digits, spaces, - and _. seconds: of a clip.
    saved: paths so far. says: what happens now, for people.
    Raises DataError for names that cannot be files, OutputError where nothing can be written.
    """

    def __init__(self, folder: Path | str, label: str, person: str, *, count: int = 10, seconds: float = 3.0):
        self.folder = Path(folder).expanduser()
        self.label, self.person = _as_name("label", label), _as_name("person", person)
        self.count, self.seconds = count, seconds
        self.saved: list[Path] = []
        self.says = "waiting for the first frame"
        self._writer: VideoWriter | None = None
        self._since_s = self._last_s = None

    @property
    def done(self) -> bool:
        return len(self.saved) >= self.count

    @property
    def recording(self) -> bool:
        return self._writer is not None

    def see(self, frame: np.ndarray, time_s: float, fps: float) -> None:
        """Take in the next frame (uint8 BGR) of time `time_s`; fps: of the stream."""
        if self.done:
            return
        if self._last_s is None or not 0 <= time_s - self._last_s <= _LONGEST_GAP_S:
            self.close()  # the first frame, or one after a gap: the clip begins again
            self._since_s = time_s
        self._last_s = time_s
        passed = time_s - self._since_s
        clip = f"{self.label}, clip {len(self.saved) + 1} of {self.count}"
        if not self.recording and passed < COUNTDOWN_S:
            self.says = f"{clip}: in {math.ceil(COUNTDOWN_S - passed)}"
            return
        if not self.recording:
            self._writer, self._since_s, passed = self._open(min(fps, 30.0)), time_s, 0.0
        if passed < self.seconds:
            self._writer.write(frame, time_s)
            self.says = f"{clip}: recording"
            return
        self._save()
        self._since_s = time_s
        self.says = f"{clip}: saved" + (f"; all {self.count} are in {self.folder}" if self.done else "")

    def _open(self, fps: float) -> VideoWriter:
        """Hidden until it is complete, so that no half clip is ever found by a training."""
        return VideoWriter(self.folder / self.label / f".{self.person}-new.mp4", fps)

    def _save(self) -> None:
        writer, self._writer = self._writer, None
        writer.close()
        folder = self.folder / self.label
        number = 1
        while (path := folder / f"{self.person}-{number:03d}.mp4").exists():
            number += 1
        writer.path.rename(path)
        write_groups(self.folder)
        self.saved.append(path)

    def close(self) -> None:
        """Throw away a clip that is not complete; safe to call again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(DataError):
                writer.close()
            writer.path.unlink(missing_ok=True)


def write_groups(folder: Path) -> None:
    """Let groups.csv name every video of the class folders: rows stay, new videos get one, those that are gone lose it.

    A video `<person>-<number>.mp4` is of the group of that person; another name tells its group as usual.
    """
    path = folder / GROUPS_FILE
    with OutputFile(path) as output:  # locked: nobody else's rows get lost
        rows = [row for _, row in read_csv(path, _COLUMNS)] if path.is_file() else []
        groups = {(row["label"], row["file"]): row["group"] for row in rows}
        videos = [video for label in subfolders(folder) for video in visible_entries(label)]
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(_COLUMNS)
        for video in videos:
            if video.suffix.lower() in VIDEO_SUFFIXES:
                key = video.parent.name, video.name
                table.writerow((*key, groups.get(key) or _group_of(video)))
        output.write(text.getvalue().encode())
        output.publish()


def _group_of(video: Path) -> str:
    own = _OWN_NAME.fullmatch(video.name)
    return own[1] if own else group_of_name(video.name, video.parent.name)


def _as_name(what: str, text: str) -> str:
    name = text.strip()
    if not re.fullmatch(r"\w[\w -]{0,59}", name):
        raise DataError(f"{what} {text!r}: use up to 60 letters, digits, spaces, - and _, a letter or digit first.")
    return name.replace(" ", "_")


def capture_clips(
    source: str | int | Path, capture: ClipCapture, *, show: bool = False, say: Callable[[str], None] = print
) -> str:
    """Let `capture` see a source until it has all its clips; how the source ended before, "" when it did not.

    show: in a window with the countdown, `q` ends it. say: told what changes. Raises SourceError and OutputError.
    """
    told = ""
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(source))
        stack.callback(capture.close)
        window = stack.enter_context(open_window(frames.name)) if show else None
        for frame, time_s, _ in arriving_frames(frames, threading.Event(), lambda: 0.0, stack=stack):
            capture.see(frame, time_s, frames.fps)
            if capture.says != told:
                say(told := capture.says)
            if capture.done or (window and not window(draw_banner(frame, capture.says, mirror=True))):
                return ""
        return frames.shortfall or f"{frames.name} ended before all clips were recorded."
