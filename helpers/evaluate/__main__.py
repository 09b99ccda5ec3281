"""The command line that scores the deployed models on folders of files.

python -m helpers.evaluate action  FOLDER_OR_ZIP [--model DIR_OR_FILE] [--csv OUT.csv] [--jobs N]
                                                 [--reject] [--scaling RANGE]
python -m helpers.evaluate emotion FOLDER_OR_ZIP [--model DIR_OR_FILE] [--csv OUT.csv] [--jobs N] [--detect]

It prints `accuracy=0.712 macro_f1=0.655 n=1230 skipped=2` and a table: arg-max over all labels, no threshold. Clips in
a class folder `none` are left out of both. With --reject a second line follows,
`answered=0.78 right=0.91 false_alarms=0.06 negatives=132`: what the live system would have shown, with the model's own
threshold.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TextIO

from helpers.action.classifier import DEFAULT_ACTION, SCALINGS
from helpers.console import positive, run_command
from helpers.data.files import printable
from helpers.data.folders import Skipped
from helpers.data.outputs import written
from helpers.emotion.classifier import DEFAULT_EMOTION
from helpers.errors import DataError
from helpers.evaluate.metrics import format_table, metrics_line, summarise
from helpers.evaluate.predict import evaluate_action, evaluate_emotion
from helpers.predictions import Predictions


def _write_csv(file: TextIO, predictions: Predictions) -> None:
    """One row per file: `file,label,predicted,confidence` and a column `p_<class>` per class."""
    writer = csv.writer(file)
    writer.writerow(["file", "label", "predicted", "confidence", *(f"p_{name}" for name in predictions.classes)])
    names = zip(predictions.files, predictions.labels, predictions.predicted, strict=True)
    for name, row in zip(names, predictions.probabilities, strict=True):
        writer.writerow([*name, f"{row.max():.6f}", *(f"{value:.6f}" for value in row)])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.evaluate", description="Score a model on class folders of files."
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    action = tasks.add_parser("action", help="score the action model on videos")
    emotion = tasks.add_parser("emotion", help="score the emotion model on images of faces")
    for command, default in ((action, DEFAULT_ACTION), (emotion, DEFAULT_EMOTION)):
        command.add_argument("source", metavar="FOLDER_OR_ZIP", help="class folders, or zips of them")
        command.add_argument("--model", metavar="DIR_OR_FILE", default=default, help="default: %(default)s")
        command.add_argument("--csv", metavar="OUT.csv", help="write a row per file here")
        command.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes (default: 1)")
    action.add_argument(
        "--reject", action="store_true", help="also measure what the live system shows, and for clips in none/"
    )
    action.add_argument(
        "--scaling", choices=list(SCALINGS), help="range of the pixels that a model made elsewhere takes, default -1..1"
    )
    emotion.add_argument("--detect", action="store_true", help="find and align the face in a full photo first")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 when a video was scored although frames of it could not be
    decoded, 2 when the model, the source or the csv cannot be used."""
    options = _parse(arguments)
    # Claimed before the work, which may take an hour; it takes the place of an older file when all rows are in it.
    csv_file = written(options.csv, options.source, options.model) if options.csv else nullcontext()
    try:
        with csv_file as file:
            if options.task == "action":
                found = evaluate_action(
                    options.source, options.model, reject=options.reject, scaling=options.scaling, jobs=options.jobs
                )
            else:
                found = evaluate_emotion(options.source, options.model, options.detect, options.jobs)
            _name("skipped", found.skipped)
            _name("incomplete", found.incomplete)
            metrics = summarise(found.predictions, len(found.skipped))
            print(metrics_line(metrics))
            if found.rejection:
                print(found.rejection.line())
            print(format_table(metrics))
            if file:
                _write_csv(file, found.predictions)
    except (DataError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 1 if found.incomplete else 0


def _name(what: str, files: Sequence[Skipped]) -> None:
    for item in files:
        name = printable(item.path)
        print(f"{what} {name}: {item.reason.removeprefix(f'{name}: ')}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
