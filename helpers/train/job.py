"""What every training on a user's own files shares: the folder that it writes, what it says, its report."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from helpers.data.cache import content_key
from helpers.data.files import printable
from helpers.data.folders import Sample, Skipped
from helpers.data.outputs import OutputFile
from helpers.data.paths import ARTIFACTS
from helpers.errors import DataError
from helpers.evaluate.metrics import format_histories, format_table, group_interval, metrics_line, summarise
from helpers.evaluate.plots import plot_confusion, plot_histories
from helpers.predictions import Predictions

_WORK, _REPORT = ".work", "report.md"  # checkpoints of an unfinished training; what a finished one has
_FEW = 5  # groups: the bootstrap over fewer gives an interval of hardly any width


@contextmanager
def output_folder(output: str | Path, source: str | Path) -> Iterator[tuple[Path, OutputFile]]:
    """(the folder to write, its report, locked). Checkpoints in `.work` are removed at a clean end.

    Raises DataError when the folder holds something else or a finished model, lies in the source or below artifacts/,
    or when another training is writing it.
    """
    folder, source = Path(output).expanduser().resolve(), Path(source).expanduser().resolve()
    if folder.is_relative_to(ARTIFACTS.resolve()):
        raise DataError(f"{output}: the project's own models lie below artifacts/; choose another folder")
    if folder == source or folder.is_relative_to(source) or source.is_relative_to(folder):
        raise DataError(
            f"{output}: is the folder to learn from, or one of both lies in the other; choose another folder"
        )
    if (folder / _REPORT).is_file():
        raise DataError(f"{output}: holds a finished model; choose another folder, or delete this one to train anew")
    if folder.exists() and not (folder / _WORK).is_dir() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{output}: is not empty, and holds no training to go on with; choose another folder")
    with OutputFile(folder / _REPORT) as report:
        (folder / _WORK).mkdir(exist_ok=True)
        try:
            yield folder, report
        finally:
            with suppress(OSError):  # nothing begun: nothing left
                (folder / _WORK).rmdir()
        report.publish()
        shutil.rmtree(folder / _WORK)


def work_folder(folder: Path, samples: list[Sample], recipe: dict) -> Path:
    """Where checkpoints belong that fit these files and this recipe: others are never taken up."""
    key = json.dumps([content_key(samples), [(s.label, s.group) for s in samples], recipe], sort_keys=True)
    return folder / _WORK / hashlib.sha256(key.encode()).hexdigest()[:12]


def describe(samples: Sequence[Sample], skipped: Sequence[Skipped], what: str) -> None:
    """Print what was found: files and groups of each class, and what is left out and why. what: "clips", "images"."""
    counts = Counter(sample.label for sample in samples)
    groups = Counter(label for label, _ in {(sample.label, sample.group) for sample in samples})
    width = max(len("class"), *map(len, counts))
    print(f"{'class':{width}}  {what:>7}  groups")
    for label in sorted(counts):
        print(f"{label:{width}}  {counts[label]:7}  {groups[label]:6}")
    print(f"{'all':{width}}  {len(samples):7}  {len({sample.group for sample in samples}):6}")
    name_skipped(skipped)


def name_skipped(skipped: Sequence[Skipped]) -> None:
    print("\n".join(map(_skipped, skipped)), end="\n" if skipped else "", flush=True)


def _skipped(item: Skipped) -> str:
    name = printable(item.path)
    return f"skipped {name}: {item.reason.removeprefix(f'{name}: ')}"


def has_group(sample: Sample) -> bool:
    """Whether more is known of a file than that nobody knows who or what it shows (see `group_of_name`)."""
    return sample.group != _own_group(sample)


def _own_group(sample: Sample) -> str:
    return f"{sample.label}/{sample.path.name}"


def known_groups(samples: list[Sample]) -> list[Sample]:
    """The samples as they can be split: each file a group of its own, with a loud warning, when nothing tells apart
    which files show the same person or place, or when all of them show the same one."""
    own = [replace(sample, group=_own_group(sample)) for sample in samples]
    apart = sum(map(has_group, samples))
    if apart and len({sample.group for sample in samples}) > 1:
        if apart < len(samples):
            print(f"{len(samples) - apart} of {len(samples)} files have no recognisable group: each is one of its own")
        return samples
    why = "all files are of one group" if apart else "no groups recognised"
    print(
        f"\nWARNING: {why}. Each file counts as a group of its own now, so the same person and\n"
        "place are in training AND in test: the scores below look better than they are. What to do: film another\n"
        "person, or in another place; then put a groups.csv with the columns label,file,group beside the class\n"
        "folders (group = person or place), or begin the files' names with the person: p1_..., p2_...\n"
    )
    return own


def doubts(samples: Sequence[Sample]) -> list[str]:
    """What the report says about a split by file."""
    if any(map(has_group, samples)):
        return []
    return ["**No groups: split by file.** People and places are in training and in test; new ones will score lower."]


@dataclass(frozen=True)
class Outcome:
    """What a finished training has to tell.

    task: "action" or "emotion". held_out: each file scored by a network that never saw its group. histories: by
    optimizer, its curves. chosen: the optimizer in use. notes: sentences about how it was trained.
    scored, closing: how `held_out` came about, and the sentence before the lines that use the model.
    evaluate_options: of the second of these lines. chosen_on: the files whose accuracy chose the optimizer.
    figures: sentences to print below the accuracy.
    """

    task: str
    held_out: Predictions
    histories: Mapping[str, Mapping[str, Sequence[float]]]
    accuracies: Mapping[str, float]
    chosen: str
    notes: Sequence[str]
    skipped: Sequence[Skipped]
    scored: str = "each file scored by a network that never saw its group (person or place)"
    closing: str = "Use it. The model was trained on all files; the second line wants others for a true figure:"
    evaluate_options: Sequence[str] = ()
    chosen_on: str = "held-out"
    figures: Sequence[str] = ()


def report(outcome: Outcome, folder: Path, file: OutputFile, source: str | Path) -> None:
    """Write curves.png, confusion.png and the report, and print its figures and the lines that use the model."""
    plot_histories(outcome.histories).savefig(folder / "curves.png")
    plot_confusion(outcome.held_out).savefig(folder / "confusion.png")
    metrics = summarise(outcome.held_out, len(outcome.skipped))
    figures = [
        metrics_line(metrics),
        _interval_over_groups(outcome.held_out),
        format_table(metrics),
        *outcome.figures,
    ]
    if len(outcome.accuracies) > 1:
        compared = (f"{name} {accuracy:.3f}" for name, accuracy in outcome.accuracies.items())
        figures.append(f"optimizers by {outcome.chosen_on} accuracy: {', '.join(compared)}; used: {outcome.chosen}")
        if outcome.chosen_on == "held-out":
            figures.append(
                "(the best of several was chosen on the files that are reported: its figure is a little too kind)"
            )
    lines = _usage(outcome, folder, source)
    text = (
        [f"# A model for {', '.join(outcome.held_out.classes)}", ""]
        + [f"{outcome.scored[0].upper()}{outcome.scored[1:]}:", ""]
        + ["```text", *figures, "```", "", "![confusion matrix](confusion.png)", "", "![curves](curves.png)", ""]
        + ["```text", format_histories(outcome.histories), "```", ""]
        + [f"- {note}" for note in outcome.notes]
        + [f"- {_skipped(item)}" for item in outcome.skipped]
        + ["", outcome.closing, ""]
        + ["```bash", *lines, "```", ""]
    )
    file.write("\n".join(text).encode())
    print(f"\n{outcome.scored}:")
    print("\n".join(figures))
    print(f"\n{outcome.closing}")
    print("\n".join(lines))


def _interval_over_groups(held_out: Predictions) -> str:
    groups = len(set(held_out.groups))
    if groups < _FEW:
        return f"{groups} groups: too few for an interval that draws whole groups; the one below is too narrow"
    low, high = group_interval(held_out.correct, held_out.groups)
    return f"{groups} groups; 95 % interval of the accuracy, drawing whole groups: {low:.2f}..{high:.2f}"


def _usage(outcome: Outcome, folder: Path, source: str | Path) -> list[str]:
    python = shlex.quote(Path(sys.executable).name)
    place, task = shlex.quote(str(folder)), outcome.task
    options = "".join(f" {option}" for option in outcome.evaluate_options)
    return [
        f"{python} -m helpers.live --{task}-model {place}",
        f"{python} -m helpers.evaluate {task} {shlex.quote(str(source))} --model {place}{options}",
    ]
