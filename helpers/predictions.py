"""What a model said about labelled files, kept as .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers.data.folders import Sample
from helpers.errors import DataError


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers for N files, and what is true.

    files: N names, `<class>/<file>`.  labels: N true class names.
    classes: the C class names of the model, in the order of its outputs.
    probabilities: float (N, C), rows sum to 1.
    groups: N names of the person, place or sequence a file comes from; empty when not known.
    Raises ValueError when the parts do not fit together.
    """

    files: Sequence[str]
    labels: Sequence[str]
    classes: Sequence[str]
    probabilities: np.ndarray
    groups: Sequence[str] = ()

    def __post_init__(self) -> None:
        count = len(self.files)
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"a class is named twice: {', '.join(self.classes)}")
        if len(self.labels) != count or len(self.groups) not in (0, count):
            raise ValueError(
                f"{count} files need {count} labels and {count} or no groups, "
                f"not {len(self.labels)} and {len(self.groups)}"
            )
        if np.shape(self.probabilities) != (count, len(self.classes)):
            raise ValueError(
                f"probabilities of {count} files and {len(self.classes)} classes "
                f"cannot have the shape {np.shape(self.probabilities)}"
            )
        if not np.allclose(np.sum(self.probabilities, axis=1), 1.0, atol=1e-3):
            raise ValueError("each row of probabilities must sum to 1")
        unknown = sorted(set(self.labels) - set(self.classes))
        if unknown:
            raise ValueError(f"labels {', '.join(unknown)} are none of {', '.join(self.classes)}")

    @classmethod
    def from_samples(
        cls, samples: Sequence[Sample], classes: Sequence[str], probabilities: Sequence[np.ndarray]
    ) -> Predictions:
        """The answers `probabilities` (N, C) of a model with the outputs `classes` for `samples`.

        Rows are scaled to sum to 1, which those of a quantised model do only nearly. Raises DataError when they are
        not finite.
        """
        rows = np.array(probabilities, dtype=np.float32).reshape(len(samples), len(classes))
        if not np.isfinite(rows).all():
            raise DataError(
                "the model's outputs are not finite: it is damaged or diverged in training; restore or retrain it"
            )
        return cls(
            files=tuple(f"{sample.label}/{sample.path.name}" for sample in samples),
            labels=tuple(sample.label for sample in samples),
            classes=tuple(classes),
            probabilities=rows / rows.sum(axis=1, keepdims=True),
            groups=tuple(sample.group for sample in samples),
        )

    @property
    def targets(self) -> np.ndarray:
        """int (N,): index of the true class."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.labels], dtype=int)

    @property
    def predicted(self) -> np.ndarray:
        """str (N,): name of the most probable class, without any rejection threshold."""
        return np.array(self.classes)[np.argmax(self.probabilities, axis=1)]

    @property
    def confidence(self) -> np.ndarray:
        """float (N,): probability of the most probable class, in [1/C, 1]."""
        return np.max(self.probabilities, axis=1)

    @property
    def correct(self) -> np.ndarray:
        """bool (N,): is the most probable class the true one?"""
        return np.argmax(self.probabilities, axis=1) == self.targets

    def part(self, chosen: np.ndarray) -> Predictions:
        """The predictions of the files for which bool `chosen` (N,) is true."""
        index = np.flatnonzero(chosen)
        names = {
            key: tuple(getattr(self, key)[i] for i in index) if getattr(self, key) else ()
            for key in ("files", "labels", "groups")
        }
        return replace(self, **names, probabilities=self.probabilities[index])

    def save(self, path: Path | str) -> None:
        """Write an `.npz` of plain arrays: no pickle, so that loading it never runs code."""
        np.savez_compressed(
            path,
            files=np.array(self.files, dtype=str),
            labels=np.array(self.labels, dtype=str),
            classes=np.array(self.classes, dtype=str),
            groups=np.array(self.groups, dtype=str),
            probabilities=np.asarray(self.probabilities, dtype=np.float32),
        )

    @classmethod
    def load(cls, path: Path | str) -> Predictions:
        """Read what `save` wrote; DataError when the file is missing, cut off or something else."""
        with stored_arrays(path, "evaluate the model again to write it anew") as arrays:
            names = {key: tuple(arrays[key].tolist()) for key in ("files", "labels", "classes", "groups")}
            return cls(**names, probabilities=arrays["probabilities"])


@contextmanager
def stored_arrays(path: Path | str, remedy: str) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of an .npz; DataError when it is missing, damaged or something else. remedy: what to do then."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, KeyError, ValueError, EOFError, TypeError, MemoryError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error}); {remedy}") from error
