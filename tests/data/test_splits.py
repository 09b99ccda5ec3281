"""Splits keep groups whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.data import folders, splits
from helpers.data.folders import Sample
from helpers.errors import DataError


def make_samples(*rows: tuple[str, str, int]) -> list[Sample]:
    """`(label, group, count)` rows as samples."""
    return [
        Sample(Path(f"{label}/{group}_{i}.avi"), label, group) for label, group, count in rows for i in range(count)
    ]


PLACES = [(label, f"{label}{i}", 4) for label in ("jump", "walk") for i in range(2)]


PEOPLE = [(label, f"p{i}", 1) for label in ("bend", "wave") for i in range(7)]


@pytest.mark.parametrize(
    "rows, fraction, reason",
    [
        (PEOPLE, 0.3, "each person shows each action"),
        (PLACES, 0.25, "two places per label: one must be held out, more than asked for"),
        (PLACES + PEOPLE, 0.25, "both at once, as the everyday actions are"),
        (
            [("a", f"a{i}", 1) for i in range(50)] + [("b", f"b{i}", 1) for i in range(5)],
            0.2,
            "no groups known: an ordinary stratified split, the rare label on both sides",
        ),
        (
            [("a", "x", 3), ("a", "y", 9), ("b", "y", 2), ("b", "z", 5), ("c", "z", 1), ("c", "w", 4)],
            0.4,
            "labels chained by shared groups",
        ),
        (
            [("a", "w", 9), ("a", "r", 9), ("b", "w", 9), ("b", "m", 9), ("c", "s", 9), ("c", "m", 9), ("d", "s", 9)]
            + [("d", "l", 9)],
            0.15,
            "no single group holds out every label, as the places of the everyday actions",
        ),
        (PEOPLE, 0.95, "something is left for training"),
    ],
)
def test_split_keeps_groups_whole_and_labels_on_both_sides(rows, fraction, reason):
    samples = make_samples(*rows)
    train, held_out = splits.split_groups(samples, fraction, seed=1)
    assert sorted(train + held_out, key=str) == sorted(samples, key=str), reason
    assert not {s.group for s in train} & {s.group for s in held_out}, reason
    assert {s.label for s in train} == {s.label for s in held_out}, reason
    shuffled = list(reversed(samples))
    assert splits.split_groups(samples, fraction, seed=1) == (train, held_out), "seeded"
    assert len(splits.split_groups(shuffled, fraction, seed=2)[1]) > 0, "any order"


def test_singles_split_is_stratified_exactly():
    samples = make_samples(*[("a", f"a{i}", 1) for i in range(100)], *[("b", f"b{i}", 1) for i in range(20)])
    train, held_out = splits.split_groups(samples, 0.1, seed=0)
    table = folders.count_table({"train": train, "val": held_out})
    assert table == {"a": {"train": 90, "val": 10}, "b": {"train": 18, "val": 2}}


def test_another_seed_gives_another_split():
    samples = make_samples(*[("a", f"a{i}", 1) for i in range(30)])
    assert splits.split_groups(samples, 0.3, 0) != splits.split_groups(samples, 0.3, 1)


@pytest.mark.parametrize(
    "rows, fraction, message",
    [
        ([("jump", "place", 9), *PEOPLE], 0.2, "label 'jump' has files of one group only .place."),
        (
            [("a", "x", 1), ("a", "y", 1), ("b", "x", 1), ("b", "z", 1), ("c", "y", 1), ("c", "z", 1)],
            0.5,
            "no split found",
        ),
        (PEOPLE, 0, "fraction"),
        (PEOPLE, 1.5, "fraction"),
        ([], 0.5, "no samples"),
    ],
)
def test_impossible_splits_are_refused(rows, fraction, message):
    with pytest.raises(DataError, match=message):
        splits.split_groups(make_samples(*rows), fraction, 0)


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_leave_groups_out_tests_each_sample_once(folds, recwarn):
    samples = make_samples(*PEOPLE)
    tested = []
    for train, test in splits.leave_groups_out(samples, folds, seed=0):
        splits.assert_disjoint(train, test)
        assert test and len(train) + len(test) == len(samples)
        tested += test
    assert sorted(tested, key=str) == sorted(samples, key=str)
    assert not recwarn.list, "a warning would end up in a notebook"


@pytest.mark.parametrize("folds", [1, 8])
def test_impossible_folds_are_refused(folds):
    with pytest.raises(DataError, match=f"{folds} folds of 7 groups"):
        list(splits.leave_groups_out(make_samples(*PEOPLE), folds, 0))


def test_assert_disjoint_names_what_is_shared():
    train, test = make_samples(("a", "anna", 2)), make_samples(("b", "anna", 1), ("b", "ben", 1))
    with pytest.raises(DataError, match="anna"):
        splits.assert_disjoint(train, test)
    same_file = [Sample(train[0].path, "a", "another name")]
    with pytest.raises(DataError, match=r"anna_0\.avi"):
        splits.assert_disjoint(train, same_file)
    splits.assert_disjoint(train, test[1:])


def grouped(labels: dict[str, str]) -> list[Sample]:
    """One sample per letter: {label: "abc"} are three samples of the groups a, b and c."""
    return [
        Sample(Path(f"{label}{number}.mp4"), label, group)
        for label, groups in labels.items()
        for number, group in enumerate(groups)
    ]


@pytest.mark.parametrize(
    "labels, folds, reason",
    [
        ({"hop": "abcdef", "nod": "abcdef"}, 5, "five at most"),
        ({"hop": "abcdef", "nod": "gh"}, 2, "a label with two groups allows two"),
        ({"hop": "aabbcc", "nod": "abc", "none": "z"}, 3, "clips that show nothing need no second group"),
    ],
)
def test_honest_folds_train_with_every_label_that_they_test(labels, folds, reason):
    samples = grouped(labels)
    pairs = splits.honest_folds(samples, extra="none")
    assert len(pairs) == folds, reason
    assert sorted(s.path for _, test in pairs for s in test) == sorted(s.path for s in samples), "each is tested once"
    for train, test in pairs:
        splits.assert_disjoint(train, test)
        assert {s.label for s in test} - {"none"} <= {s.label for s in train}


@pytest.mark.parametrize(
    "labels, named",
    [({"hop": "ab", "nod": "aa"}, "'nod' has files of one group"), ({"hop": "ab", "nod": "b"}, "'nod'")],
)
def test_folds_that_cannot_be_honest_name_the_label(labels, named):
    with pytest.raises(DataError, match=named):
        splits.honest_folds(grouped(labels))
