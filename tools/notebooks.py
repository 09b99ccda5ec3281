"""The notebooks as a series: navigation cells, running them all, and the rules that each of them must keep."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from packaging.requirements import Requirement

from helpers.data.paths import REPOSITORY
from helpers.errors import DataError

FOLDER = REPOSITORY / "notebooks"
CONTENTS = "../README.md"
NOTEBOOKS = {  # in the order of reading
    "00_tour": "A tour",
    "01_frames_and_augmentation": "From a video to clips",
    "02_action_training": "Training the action model",
    "03_face_alignment": "From a photo to an aligned face",
    "04_emotion_training": "Training the emotion model",
    "05_optimizer_comparison": "Optimizers compared",
    "06_evaluation": "Evaluation",
    "07_live_webcam": "Live from the webcam",
}
NAVIGATION = "navigation"  # tag of the generated cells
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}  # no version: it would change with the machine
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# A quarter of an hour's reading; longer lines of code have to be scrolled on GitHub.
LIMITS = {"words": 1300, "code cells": 18, "lines in a cell": 20, "characters in a line": 120, "figures": 8}
MOST_PRINTED = 25  # lines that a cell prints
MOST_BYTES = 1_500_000
SECONDS_PER_CELL = 600  # a cell that hangs is an error, except in the full profile, where training takes hours
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~<-])(/[A-Za-z]+)(?:/[\w.-]+)+|\b[A-Z]:\\\\?\w+")
PUBLIC_FOLDERS = ("/dev", "/usr", "/proc", "/etc", "/bin")  # the same on every machine
PRIVATE_FOLDERS = ("/home", "/Users", "/root", "/tmp", "/private", "/mnt", "/content")


def environment(*packages: str) -> str:
    """One line with the versions of `packages`: "[OK] numpy 2.4.6 · keras 3.15.1", or "[FAIL] ..." and what to do.

    packages: names as in requirements.txt, whose pins they are compared with.
    """
    found = {package: _installed(package) for package in packages}
    wrong = [
        f"{package} {found[package] or 'is missing'}"
        for package in packages
        if not any(pin.name == package and found[package] in pin.specifier for pin in _pins() if found[package])
    ]
    if wrong:
        return f"[FAIL] not as in requirements.txt: {', '.join(wrong)}; run `pip install -r requirements.txt`"
    return "[OK] " + " · ".join(f"{package} {number}" for package, number in found.items())


def _installed(package: str) -> str:
    """Version of a package or of a variant that brings the same module, "" when there is none."""
    for name in (package, f"{package}-headless", f"{package}-cpu"):
        with suppress(PackageNotFoundError):
            return version(name)
    return ""


def _pins() -> list[Requirement]:
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(text) for line in lines if (text := line.split("#")[0].strip())]


def notebook_paths(numbers: Iterable[str] = ()) -> list[Path]:
    """The notebooks that exist, in order; only those whose names start with one of `numbers` ("01") when given.

    Raises DataError for a number that is no notebook's.
    """
    paths = [path for name in NOTEBOOKS if (path := FOLDER / f"{name}.ipynb").is_file()]
    for number in numbers:
        if not any(path.name.startswith(number) for path in paths):
            raise DataError(f"{FOLDER}: no notebook {number!r}, only {', '.join(path.stem for path in paths)}")
    return [path for path in paths if not numbers or path.name.startswith(tuple(numbers))]


def navigation(name: str) -> str:
    """Markdown: previous · contents · next of the notebook `name`, as links relative to its folder."""
    names = list(NOTEBOOKS)
    place = names.index(name)
    links = [f"[Contents]({CONTENTS})"]
    if place > 0:
        links.insert(0, f"[← {NOTEBOOKS[names[place - 1]]}]({names[place - 1]}.ipynb)")
    if place + 1 < len(names):
        links.append(f"[{NOTEBOOKS[names[place + 1]]} →]({names[place + 1]}.ipynb)")
    return " · ".join(links)


def with_navigation(name: str, notebook: NotebookNode) -> list[NotebookNode]:
    """The notebook's cells between a generated first and last one; older generated cells are dropped."""
    cells = [cell for cell in notebook.cells if NAVIGATION not in cell.metadata.get("tags", [])]
    first, last = (
        nbformat.v4.new_markdown_cell(navigation(name), id=f"{NAVIGATION}-{place}", metadata={"tags": [NAVIGATION]})
        for place in ("top", "bottom")
    )
    return [first, *cells, last]


def write_navigation(paths: Iterable[Path] | None = None) -> None:
    """Put up-to-date navigation into the notebooks (all by default); a file that has it already is not touched."""
    for path in notebook_paths() if paths is None else paths:
        notebook = nbformat.read(path, as_version=4)
        cells = with_navigation(path.stem, notebook)
        if cells != notebook.cells:
            notebook.cells = cells
            nbformat.write(notebook, path)


def run(path: Path) -> NotebookNode:
    """The notebook after a run from top to bottom in a fresh kernel; the file stays as it is.

    The kernel starts in the notebook's folder, with the repository on its import path. What differs from run to run
    (timings, widget state, version of Python) is left out, and so is a widget that has an image beside it: whoever
    opens the file sees the image, not "model not found". Raises nbclient's CellExecutionError at the first error.
    """
    notebook = nbformat.read(path, as_version=4)
    search_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    timeout = None if os.environ.get("HAR_PROFILE") == "full" else SECONDS_PER_CELL
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env={**os.environ, "PYTHONPATH": search_path})
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in cell.metadata if key == "tags"})
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "image/png" in data:
                data.pop(WIDGET_VIEW, None)
    return notebook


def execute(paths: Iterable[Path] | None = None) -> None:
    """Run the notebooks (all by default) one after the other and save each with its outputs, unless in smoke."""
    for path in notebook_paths() if paths is None else paths:
        print(f"running {path.stem}", flush=True)
        notebook = run(path)
        if os.environ.get("HAR_PROFILE") != "smoke":
            nbformat.write(notebook, path)


def problems(path: Path) -> list[str]:
    """What a reader or a reviewer would trip over in a saved notebook; empty when there is nothing."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    found = [*_form_problems(path, notebook, code)]
    for place, cell in enumerate(code, start=1):
        found += [f"code cell {place}: {text}" for text in _cell_problems(cell)]
    found += [f"an absolute path of one machine: {text}" for text in _private_paths(notebook)]
    return [f"{path.name}: {text}" for text in found]


def sizes(notebook: NotebookNode) -> dict[str, int]:
    """What a reader has to get through, by the names of `LIMITS`. Words: of markdown, bars of tables left out."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    shown = [output.get("data", {}) for cell in code for output in cell.outputs]
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    prose += [data["text/markdown"] for data in shown if "text/markdown" in data]
    return {
        "words": sum(any(map(str.isalnum, word)) for text in prose for word in text.split()),
        "code cells": len(code),
        "lines in a cell": max((len(cell.source.splitlines()) for cell in code), default=0),
        "characters in a line": max((len(line) for cell in code for line in cell.source.splitlines()), default=0),
        "figures": sum("image/png" in data for data in shown),
    }


def counts(path: Path) -> str:
    """One line about a notebook's length."""
    found = sizes(nbformat.read(path, as_version=4))
    return (
        f"{path.stem:28}"
        + "".join(f"{n:6} {name}" for name, n in found.items())
        + f"{path.stat().st_size / 1e3:7.0f} kB"
    )


def _form_problems(path: Path, notebook: NotebookNode, code: list[NotebookNode]) -> Iterator[str]:
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        yield f"execution counts are {counts}, not 1..{len(code)}: it was not run top to bottom before it was saved"
    for name, number in sizes(notebook).items():
        if number > LIMITS[name]:
            yield f"{number} {name}, at most {LIMITS[name]}"
    if path.stat().st_size > MOST_BYTES:
        yield f"{path.stat().st_size / 1e6:.1f} MB, at most {MOST_BYTES / 1e6:.1f}: make the figures smaller"
    if (kernel := notebook.metadata.get("kernelspec", {}).get("name")) != "python3":
        yield f"its kernel is {kernel!r}, not 'python3'"
    if path.stem not in NOTEBOOKS:
        yield "not in tools.notebooks.NOTEBOOKS"
    elif notebook.cells != with_navigation(path.stem, notebook):
        yield "navigation is missing or old: run `python -m tools.notebooks`"


def _cell_problems(cell: NotebookNode) -> Iterator[str]:
    printed = sum(len(text.splitlines()) for output in cell.outputs for text in _texts(output))
    if printed > MOST_PRINTED:
        yield f"{printed} lines of output, at most {MOST_PRINTED}"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"an error: {output.ename}"
        if output.get("name") == "stderr":
            yield f"stderr: {output.text.strip().splitlines()[0][:80]}"


def _texts(output: NotebookNode) -> list[str]:
    """What of an output is read as text: not images."""
    if output.output_type == "error":
        return list(output.traceback)
    return [output.get("text", ""), output.get("data", {}).get("text/plain", "")]


def _private_paths(notebook: NotebookNode) -> list[str]:
    texts = [cell.source for cell in notebook.cells]
    texts += [
        text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for text in (*_texts(output), output.get("data", {}).get("text/html", ""))
    ]
    found = {match[0] for text in texts for match in ABSOLUTE_PATH.finditer(text) if _is_private(match[1])}
    return sorted(found)[:3]


def _is_private(top: str | None) -> bool:
    """Whether a path below the folder `top` (None: a Windows drive) tells where somebody keeps files."""
    return top is None or top in PRIVATE_FOLDERS or (top not in PUBLIC_FOLDERS and Path(top).is_dir())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 when a rule is broken, 2 for a number that is no notebook's."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", metavar="NN", help="only these notebooks, for example 01 03")
    parser.add_argument("--check", action="store_true", help="change and run nothing, only count and report")
    options = parser.parse_args(arguments)
    try:
        paths = notebook_paths(options.numbers)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not options.check:
        write_navigation(paths)
        execute(paths)
    else:
        print("\n".join(counts(path) for path in paths))
    found = [text for path in paths for text in problems(path)]
    print("\n".join(found) or f"{len(paths)} notebooks, nothing to report")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
