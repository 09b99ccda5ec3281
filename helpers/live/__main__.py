"""The command line of the live system.

python -m helpers.live --source demo --output out.mp4 --csv out.csv --headless
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from helpers.console import positive, run_command
from helpers.errors import DataError

NAMED = 5  # failures of single frames or images; the others are counted


def main(argv: list[str] | None = None) -> int:
    """The command line. Its exit code, with a message on stderr where it is not 0:

    0 done; 1 a camera, stream or cut-off file ended before its time or something in it could not be read, the rest is
    written; 2 input or output that cannot be used; 130 ended by Ctrl-C, `kill` or a closed terminal, what came before
    is written.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.list_cameras:
        return _list_cameras()
    if options.record_clips:
        if not (options.label and options.person):
            parser.error("--record-clips needs --label and --person")
        return _answered(_record_clips, options)
    return _answered(_run, options)


def _answered(command: Callable[[argparse.Namespace, str | int, bool], int], options: argparse.Namespace) -> int:
    """The exit code of a command that needs a source and perhaps a window."""
    from helpers.live.window import has_window  # not before: --help and a wrong option are answered at once

    show = not options.headless
    if show and not has_window():
        show = False
        print("No window can be opened here (headless OpenCV or no screen): running without.", file=sys.stderr)
    if options.source is None:
        print("No --source: opening camera 0. The demo clip is --source demo.", file=sys.stderr)
    try:
        return command(options, 0 if options.source is None else options.source, show)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, source: str | int, show: bool) -> int:
    from helpers.live.pipeline import Pipeline
    from helpers.live.results import LiveSettings
    from helpers.live.run import run

    try:
        summary = run(
            source,
            lambda: Pipeline.load(options.action_model, options.emotion_model, LiveSettings(skeleton=options.skeleton)),
            output=options.output,
            csv_path=options.csv,
            max_frames=options.max_frames,
            show=show,
            progress=True,
        )
    except KeyboardInterrupt:
        print("Ended before the first frame.", file=sys.stderr)
        return 130
    print(summary)
    for what, reason in summary.failures[:NAMED]:
        print(f"error: {what}: {reason}", file=sys.stderr)
    if summary.skipped > NAMED:
        print(f"error: and {summary.skipped - NAMED} more", file=sys.stderr)
    if summary.broken:
        print(f"error: {summary.broken}", file=sys.stderr)
    if summary.interrupted:
        return 130
    return 1 if summary.broken or summary.failures else 0


def _record_clips(options: argparse.Namespace, source: str | int, show: bool) -> int:
    from helpers.live.capture import ClipCapture, capture_clips

    capture = ClipCapture(
        options.record_clips, options.label, options.person, count=options.count, seconds=options.seconds
    )
    code = 0
    try:
        if ended := capture_clips(source, capture, show=show):
            print(f"error: {ended}", file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        code = 130
    print(f"clips={len(capture.saved)} folder={capture.folder / capture.label}")
    return code


def _list_cameras() -> int:
    from helpers.live.cameras import list_cameras

    for number, description in (cameras := list_cameras()):
        print(f"{number}: {description}")
    if not cameras:
        print("No camera can be opened on this computer now: none is connected, or another program uses it.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.live", description="Actions and facial emotions in a video."
    )
    parser.add_argument("--source", help="camera number (default: 0), video file, folder of images, address, or demo")
    parser.add_argument("--list-cameras", action="store_true", help="print the cameras of this computer and end")
    parser.add_argument("--output", type=Path, metavar="OUT.mp4", help="annotated video")
    parser.add_argument("--csv", type=Path, metavar="OUT.csv", help="timeline, a row per frame and face")
    parser.add_argument("--headless", action="store_true", help="no window (in a window, q ends)")
    parser.add_argument("--skeleton", action="store_true", help="draw where the limbs are seen")
    parser.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames")
    parser.add_argument("--action-model", type=Path, metavar="DIR", help="folder or file of an action model")
    parser.add_argument("--emotion-model", type=Path, metavar="DIR", help="folder or file of an emotion model")
    clips = parser.add_argument_group("record clips to train from, instead")
    clips.add_argument("--record-clips", type=Path, metavar="DIR", help="folder of the data set; makes DIR/LABEL/*.mp4")
    clips.add_argument("--label", help="the action that is shown; none for what is none of the actions")
    clips.add_argument("--person", help="who shows it: the group in groups.csv")
    clips.add_argument("--count", type=positive, default=10, metavar="N", help="clips (default: 10)")
    clips.add_argument("--seconds", type=_seconds, default=3.0, metavar="S", help="of a clip (default: 3)")
    return parser


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.5 <= number <= 60:
        raise argparse.ArgumentTypeError("must be 0.5 to 60")
    return number


if __name__ == "__main__":
    run_command(main)
