"""The command line that trains a model on the user's own files.

python -m helpers.train action  FOLDER_OR_ZIP --output DIR [--epochs N] [--jobs N] [--optimizers sgd,adam,adagrad]
                                              [--fine-tune]
python -m helpers.train emotion FOLDER_OR_ZIP --output DIR [--epochs N] [--jobs N] [--optimizers sgd,adam,adagrad]

It prints what it found, scores files by a network that never saw their group, writes model and report.md, and ends with
the lines that run and score the model. Stopped or killed, the same line goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from helpers.console import positive, quiet_stderr, run_command
from helpers.errors import DataError

OPTIMIZERS = ("sgd", "adam", "adagrad", "adamw")
TASKS = {
    "action": "train on videos",
    "emotion": "train on photographs or face crops",
}  # each is a module of this package with train(options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.train", description="Train a model on your own files.")
    tasks = parser.add_subparsers(dest="task", required=True)
    for task, text in TASKS.items():
        command = tasks.add_parser(task, help=text)
        command.add_argument("source", metavar="FOLDER_OR_ZIP", help="class folders, or zips of them")
        command.add_argument("--output", required=True, metavar="DIR", help="a new folder for the model and its report")
        command.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes that read the files")
        command.add_argument("--epochs", type=positive, metavar="N", help="default: enough for the number of files")
        command.add_argument(
            "--optimizers",
            type=_optimizers,
            default=("adamw",),
            metavar="A,B,...",
            help=f"compared, the best is used; of {', '.join(OPTIMIZERS)} (default: adamw)",
        )
    tasks.choices["action"].add_argument(
        "--fine-tune", action="store_true", help="also train the encoder, not only the LSTM on it: much slower"
    )
    return parser.parse_args(arguments)


def _optimizers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    if unknown := set(names) - set(OPTIMIZERS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(OPTIMIZERS)}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 when source or output cannot be used, 130 when stopped."""
    options = _parse(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.task == "emotion":
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # four times as fast with it
    try:
        with quiet_stderr():
            from helpers.distributed import start_distribution  # Keras: not before the two settings above

        start_distribution()
        importlib.import_module(f"helpers.train.{options.task}").train(options)
    except (DataError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same line goes on where it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    run_command(main)
