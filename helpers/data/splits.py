"""Splits that keep a group (a person, a place) on one side."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, LeaveOneGroupOut, StratifiedGroupKFold

from helpers.data.folders import Sample
from helpers.errors import DataError

_FEW_GROUPS = 10  # up to here (1,022 splits) all are looked at: few may have every label on both sides


def split_groups(samples: list[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, held out): about `fraction` held out, whole groups only, every label on both sides.

    Labels that share no group are split independently. Among many seeded proposals of
    scikit-learn's GroupShuffleSplit the one is taken whose held-out share is nearest to
    `fraction` in every label; with few groups that can still be far off, so print `count_table`.
    The same samples and seed always give the same split.

    Raises DataError when a label has only one group, or when no proposal has every label on both
    sides because groups span too many labels.
    """
    if not 0 < fraction < 1:
        raise DataError(f"fraction must lie between 0 and 1, not {fraction}.")
    _check_splittable(samples)
    train: list[Sample] = []
    held_out: list[Sample] = []
    for part in _independent_parts(samples):
        proposals = _proposals(part, fraction, seed)
        kept, taken = min(proposals, key=lambda pair: _imbalance(*pair, fraction))
        train, held_out = train + kept, held_out + taken
    if {s.label for s in train} != {s.label for s in held_out}:
        raise DataError(
            "no split found with every label on both sides and no group on both: too "
            "few groups, or groups that span many labels. Add groups, or use "
            "leave_groups_out."
        )
    assert_disjoint(train, held_out)
    return _in_order(train), _in_order(held_out)


def _check_splittable(samples: list[Sample]) -> None:
    if not samples:
        raise DataError("no samples to split.")
    for label in sorted({s.label for s in samples}):
        groups = {s.group for s in samples if s.label == label}
        if len(groups) < 2:
            raise DataError(
                f"label {label!r} has files of one group only ({groups.pop()}): "
                "held-out files would show the people or places of training. Add "
                "files of another group, or leave the label out."
            )


def _independent_parts(samples: list[Sample]) -> list[list[Sample]]:
    """The samples in parts such that no label and no group is in two parts."""
    parts: list[tuple[set[str], set[str]]] = []
    for label in sorted({s.label for s in samples}):
        labels, groups = {label}, {s.group for s in samples if s.label == label}
        for part in [p for p in parts if p[1] & groups]:
            parts.remove(part)
            labels, groups = labels | part[0], groups | part[1]
        parts.append((labels, groups))
    return [[s for s in samples if s.label in labels] for labels, _ in parts]


def _proposals(samples: list[Sample], fraction: float, seed: int) -> Iterator[tuple[list[Sample], list[Sample]]]:
    """Random splits that hold out `fraction` of the groups; where there are few, then every split there is."""
    groups = [s.group for s in samples]
    names = sorted(set(groups))
    taken = min(max(1, round(fraction * len(names))), len(names) - 1)
    rounds = max(5, min(1000, 50_000 // len(samples)))  # large sets balance by themselves
    splitter = GroupShuffleSplit(rounds, test_size=taken, random_state=seed)
    yield from _pairs(samples, splitter.split(samples, groups=groups))
    for number in range(1, len(names) if len(names) <= _FEW_GROUPS else 1):
        for held_out in combinations(names, number):
            yield [s for s in samples if s.group not in held_out], [s for s in samples if s.group in held_out]


def _pairs(
    samples: list[Sample], indices: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[list[Sample], list[Sample]]]:
    for train, test in indices:
        yield [samples[i] for i in train], [samples[i] for i in test]


def _imbalance(train: list[Sample], held_out: list[Sample], fraction: float) -> float:
    """Sum over labels of the distance to the wanted share; a label on one side only costs more."""
    inside, outside = Counter(s.label for s in held_out), Counter(s.label for s in train)
    shares = [inside[label] / (inside[label] + outside[label]) for label in inside | outside]
    return sum(abs(share - fraction) + len(shares) * (share in (0, 1)) for share in shares)


def _in_order(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda s: (s.label, s.path))


def leave_groups_out(samples: list[Sample], folds: int, seed: int) -> Iterator[tuple[list[Sample], list[Sample]]]:
    """`folds` pairs (train, test); each group is in one test part, labels spread evenly over them.

    With as many folds as groups this is leave-one-group-out. A label with fewer groups than folds
    is missing from some test parts: pool the predictions of all folds before scoring.
    Raises DataError when `folds` is below 2 or above the number of groups.
    """
    groups = [s.group for s in samples]
    if not 2 <= folds <= len(set(groups)):
        raise DataError(
            f"{folds} folds of {len(set(groups))} groups: need at least 2 folds, and at least as many groups as folds."
        )
    splitter = (
        LeaveOneGroupOut()
        if folds == len(set(groups))
        else StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    )
    with warnings.catch_warnings():  # a label with fewer files than folds: see the docstring
        warnings.simplefilter("ignore", UserWarning)
        indices = list(splitter.split(samples, [s.label for s in samples], groups))
    yield from _pairs(samples, indices)


def _labels(samples: Iterable[Sample]) -> set[str]:
    return {sample.label for sample in samples}


def honest_folds(
    samples: list[Sample], most: int = 5, *, seed: int = 0, extra: str = ""
) -> list[tuple[list[Sample], list[Sample]]]:
    """Up to `most` pairs (train, test) in which training has every label that is tested, and no group of the test part.

    extra: a label that need not be on both sides (clips that show none of the classes). Raises DataError naming the
    label that has only one group, or that every split takes from its training part.
    """
    scored = [sample for sample in samples if sample.label != extra]
    _check_splittable(scored)
    groups = {label: {s.group for s in scored if s.label == label} for label in {s.label for s in scored}}
    for folds in range(min(most, *map(len, groups.values())), 1, -1):
        for attempt in range(50):
            pairs = list(leave_groups_out(samples, folds, seed + attempt))
            missing = {label for train, test in pairs for label in _labels(test) - _labels(train) - {extra}}
            if not missing:
                return pairs
    raise DataError(
        f"label {min(missing)!r}: whatever is held out by group, a part would be trained without it: its "
        f"{len(groups[min(missing)])} groups hold other labels, too. Add files of another group."
    )


def assert_disjoint(train: Iterable[Sample], test: Iterable[Sample]) -> None:
    """Raises DataError naming the groups and files that are on both sides of a split."""
    train, test = list(train), list(test)
    shared = {s.group for s in train} & {s.group for s in test}
    shared |= {str(s.path) for s in train} & {str(s.path) for s in test}
    if shared:
        raise DataError(
            f"on both sides of the split: {', '.join(sorted(shared)[:5])} "
            f"({len(shared)} in all). Such a result measures memory."
        )
