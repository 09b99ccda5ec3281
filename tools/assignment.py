"""Where the notebooks show each line of the assignment: notebook, heading, and what stands in the output below it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

import nbformat

from tools.notebooks import notebook_paths

FIGURE = "figure"


@dataclass(frozen=True)
class Shown:
    """A line of the assignment and the place where it is shown.

    notebook: its number. heading: without "#". outputs: what the outputs below it hold, `FIGURE` or a regular
    expression that their text matches.
    """

    what: str
    notebook: str
    heading: str
    outputs: tuple[str, ...]


ASSIGNMENT = (  # whoever renames a heading of a notebook changes its row here and runs 00 again
    Shown("frames sampled and padded", "01", "Too long, too short", (FIGURE, "the last one repeated")),
    Shown(
        "augmentation", "01", "5 · Augmentation: another camera, for training clips only", (FIGURE, "mirror", "zoom")
    ),
    Shown("MobileNetV2 in TimeDistributed", "02", "The network", ("TimeDistributed",)),
    Shown("LSTM in the summary", "02", "The network", (r"motion_lstm.*LSTM",)),
    Shown("curves, action", "02", "Training", (FIGURE, "held-out groups")),
    Shown("confusion matrix, action", "02", "Scores on people and places never seen", (FIGURE,)),
    Shown("right and wrong cases, action", "02", "Sample test cases", (FIGURE, r"right", r"WRONG")),
    Shown("action files, loaded back", "02", "The files, and the model in three lines of Keras", ("predicted label",)),
    Shown("face detector", "03", "1 · Find the face", (r"box +\(\d+",)),
    Shown("68 landmarks", "03", "2 · 68 landmarks", (FIGURE, "eye line")),
    Shown("rotation and crop", "03", "3 · Turn and crop", (FIGURE, r"crop +\(48, 48\)")),
    Shown("CLAHE with histograms", "03", "4 · CLAHE: light that is more even", (FIGURE, "after CLAHE")),
    Shown(
        "standardisation",
        "03",
        "5 · Standardisation, and all steps as one object",
        (r"before\n.* 0\.00 +1\.00   after",),
    ),
    Shown(
        "separable and plain block, Mini-Xception", "04", "The network", ("plain", "separable", "parameters: [0-9,]+")
    ),
    Shown("mixup", "04", "What training does to a face", (FIGURE, "blended target")),
    Shown("focal loss, class weights", "04", "The loss", (FIGURE, "no cap", "cap")),
    Shown("cosine schedule", "04", "The optimizer, and an epoch in plain Keras", (FIGURE, "100 %: 0.00000")),
    Shown("curves, emotion", "04", "Training", (FIGURE, "validation accuracy")),
    Shown("confusion matrix, emotion", "04", "Faces it has never seen", (FIGURE, "accuracy")),
    Shown(
        "emotion files, loaded back",
        "04",
        "The files, and what they answer",
        (r"emotion_model\.h5 +\d.* kB", r"happy -> "),
    ),
    Shown(
        "regularisation, weighed",
        "04",
        "What is each ingredient worth?",
        (FIGURE, "no mixup", "no label smoothing", "no focal factor", "class weights, no cap", "no dropout", "L2"),
    ),
    Shown(
        "optimizers, emotion",
        "05",
        "Emotion: a small network on half of FER-2013",
        (FIGURE, "sgd", "adam ", "adagrad", "adamw", "adam_cosine"),
    ),
    Shown(
        "optimizers, action",
        "05",
        "Action: the two LSTMs on recorded features",
        (FIGURE, "sgd", "adam ", "adagrad", "adamw"),
    ),
    Shown("right and wrong cases, emotion", "06", "Sample test cases, right and wrong", (FIGURE, "right:", "wrong:")),
    Shown("the panel", "07", "The panel", (FIGURE,)),
    Shown("overlay with FPS and latency", "07", "Frame by frame", (FIGURE,)),
    Shown(
        "robust loading", "07", "Models made elsewhere, and files that are none", ("older Keras: loaded", "DataError")
    ),
)


def table() -> str:
    """The map as a Markdown table of links."""
    names = {path.name[:2]: path.name for path in notebook_paths()}
    lines = ["| of the assignment | shown in |", "|---|---|"]
    for row in ASSIGNMENT:
        anchor = quote(row.heading.replace(" ", "-"))
        lines.append(f"| {row.what} | [{row.notebook} · {row.heading}]({names[row.notebook]}#{anchor}) |")
    return "\n".join(lines)


def missing(row: Shown) -> list[str]:
    """What the saved notebook does not show of a row, a sentence each."""
    path = notebook_paths([row.notebook])[0]
    outputs = _below(nbformat.read(path, as_version=4), row.heading)
    place = f"{path.name}: {row.what}: "
    if outputs is None:
        return [f"{place}no heading {row.heading!r}"]
    text = "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)
    has_figure = any("image/png" in output.get("data", {}) for output in outputs)
    return [
        f"{place}below {row.heading!r} stands no {wanted}"
        for wanted in row.outputs
        if not (has_figure if wanted == FIGURE else re.search(wanted, text))
    ]


def _below(notebook: nbformat.NotebookNode, heading: str) -> list | None:
    """The outputs from a heading to the next one of its level, None when there is no such heading."""
    level, outputs = 0, None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for marks, words in re.findall(r"^(#+) (.+)$", cell.source, re.MULTILINE):
                if words.strip() == heading:
                    level, outputs = len(marks), []
                elif len(marks) <= level:
                    level = 0
        elif level:
            outputs += cell.get("outputs", [])
    return outputs
