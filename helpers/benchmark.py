"""The command line of the benchmark: how fast the live system is here, and whether it stays so.

python -m helpers.benchmark [--source FILE] [--soak-minutes M] [--json OUT.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack

from helpers.console import run_command
from helpers.data.outputs import written
from helpers.errors import DataError


def main(argv: list[str] | None = None) -> int:
    """The command line; exit code 0, or 2 with a message on stderr when it cannot be measured or written."""
    options = _parser().parse_args(argv)
    from helpers.live import benchmark, soak  # not before: --help and a wrong option are answered at once

    try:
        with ExitStack() as stack:
            file = stack.enter_context(written(options.json, options.source)) if options.json else None
            if options.soak_minutes:
                measured = soak.soak(options.soak_minutes, options.source)
                print(soak.describe_soak(measured))
            else:
                measured = benchmark.measure(options.source, options.frames or benchmark.FRAMES)
                print(benchmark.describe(measured))
            if file:
                file.write(json.dumps(measured, indent=1) + "\n")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="demo", help="a video file, or demo")
    parser.add_argument("--frames", type=int, help="of the video, in turns of a second (default: 360)")
    parser.add_argument(
        "--soak-minutes",
        type=float,
        metavar="M",
        help="instead: run so long on a camera that hangs up; watch losses, memory, lag",
    )
    parser.add_argument("--json", metavar="OUT.json", help="write the figures there, too")
    return parser


if __name__ == "__main__":
    run_command(main)
