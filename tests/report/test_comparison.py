"""What is paired with what, and the sentences about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tiltbox.metrics.outcomes_file import read_outcomes, write_outcomes
from tiltbox.records import Complexity
from tiltbox.report.collect import Row
from tiltbox.report.comparison import (
    accuracy_note,
    chance_note,
    effort_note,
    grounds,
    groups,
    input_note,
    label_note,
    pair_notes,
    pairs,
    patch_note,
    recipe_notes,
    same_test_set,
    seen_note,
)
from tiltbox.report.leaderboard_tables import model_table, pair_table, terminal_table
from tiltbox.report.plots import group_title
from tiltbox.report.uncertainty import uncertainty

PUBLISHED_RECIPE = {
    "pretrained": "https://example.org/yoloms_coco/weights.pth",
    "augmentation": ("flip", "RR"),
    "epochs": 36,
    "image_size": 1024,
    "images_per_step": 8,
}


def on(row: Row, dataset: str, split: str) -> dict:
    return {
        "dataset": dataset,
        "metrics": row.metrics.model_copy(update={"dataset": dataset, "split": split}),
    }


def test_pairs_are_what_rows_say(make_row):
    names = ["yoloms-xs-previous", "yoloms-s-previous", "yoloms-s-current", "yoloms-s-current-wide"]
    found = pairs([*map(make_row, names), Row("unknown", "mini"), Row("other", "mini")])
    assert [(p.name, c.name) for p, c in found] == [
        ("yoloms-s-previous", "yoloms-s-current"),
        ("yoloms-s-previous", "yoloms-s-current-wide"),
    ]


def test_a_row_may_be_compared_with_several(make_row):
    rival = make_row("rtmdet-r-tiny", compared_with=())
    new = make_row("yoloms-xs-current", compared_with=("yoloms-xs-previous", "rtmdet-r-tiny", "absent"))
    rows = [make_row("yoloms-xs-previous"), new, rival]
    found = pairs(rows)
    assert [(p.name, c.name) for p, c in found] == [
        ("yoloms-xs-previous", "yoloms-xs-current"),
        ("rtmdet-r-tiny", "yoloms-xs-current"),
    ]
    labels = terminal_table(rows).splitlines()[-2:]
    assert [label.split("  ")[0] for label in labels] == [
        "yoloms-xs: current − previous",
        "yoloms-xs-current − rtmdet-r-tiny",
    ]


def test_groups_join_sizes_and_comparisons(make_row):
    """The middle one is of the first one's size, and compared with the last one."""
    first, last = make_row("yoloms-s-previous"), make_row("rtmdet-r-m", size="m", compared_with=())
    alone = make_row("yoloms-l-previous")
    middle = make_row("yoloms-s-current", compared_with=("rtmdet-r-m",))
    found = groups([first, last, alone, middle])
    assert found == [[first, last, middle], [alone]]
    assert [group_title(group) for group in found] == ["S · M", "L"]


def test_without_scores_the_note_says_what_to_do(make_row):
    assert "Task1.zip" in accuracy_note([make_row("yoloms-xs-previous", metrics=None)])
    assert input_note([Row("x", "mini")]) is None


def test_unequal_effort_is_said(make_row):
    short, long = make_row("yoloms-xs-previous"), make_row("yoloms-s-previous")
    assert effort_note([short, long]) is None and effort_note([Row("mine", "mini")]) is None
    training = long.training.model_copy(update={"epochs": short.training.epochs + 5})
    both = str(short.training.epochs), str(training.epochs)
    assert f"{both[0]} and {both[1]} epochs" in effort_note([short, replace(long, training=training)])


def test_notes_name_every_test_set_and_input(make_row):
    row = make_row("yoloms-xs-previous")
    other = make_row("yoloms-xs-current", **on(row, "harbours", ""))
    assert accuracy_note([row, row, other]) == (
        "Accuracy was measured on mini val (24 images, 4 objects) and harbours (24 images, 4 objects); "
        "difficult objects do not count."
    )
    assert input_note([row]) == "FLOPs are multiply-adds at an input of 1 × 3 × 1024 × 1024."


@pytest.mark.parametrize(
    ("dataset", "split", "same"),
    [("dota", "test", True), ("dota", "val", False), ("mini", "test", False)],
)
def test_only_the_published_test_set_compares(make_row, published, dataset, split, same):
    row = make_row("yoloms-xs-previous", recipe=PUBLISHED_RECIPE)
    row = make_row("yoloms-xs-previous", recipe=PUBLISHED_RECIPE, **on(row, dataset, split))
    assert same_test_set(row, published) is same
    notes = " ".join(recipe_notes([row], published))
    assert ("not comparable" in notes) is not same
    assert "Trained differently" not in notes


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        ({"pretrained": None}, "no COCO pretraining"),
        ({"augmentation": ("flip",)}, "no RR"),
        ({"epochs": 12}, "epochs 12"),
        ({"image_size": 512}, "image size 512"),
        ({"images_per_step": 2}, "images per step 2"),
    ],
)
def test_every_departure_from_the_recipe_is_said(make_row, published, recipe, text):
    row = make_row("yoloms-xs-previous", recipe={**PUBLISHED_RECIPE, **recipe})
    assert recipe_notes([row], published)[-1] == f"Trained differently here: {text}."


def test_departures_are_gathered_over_variants(make_row, published):
    rows = [
        make_row("yoloms-xs-previous", recipe={**PUBLISHED_RECIPE, "epochs": epochs}) for epochs in (6, 2, 6)
    ]
    assert recipe_notes(rows, published)[-1] == "Trained differently here: epochs 2 and 6."


@pytest.mark.parametrize(
    ("classes", "size", "text"),
    [
        (15, 1024, "Parameters and FLOPs are comparable."),
        (3, 1024, "Parameters and FLOPs cannot be compared: a different number of classes."),
        (15, 512, "Parameters and FLOPs cannot be compared: a different input."),
    ],
)
def test_costs_compare_only_for_the_same_head_and_input(make_row, published, classes, size, text):
    row = make_row("yoloms-xs-previous", complexity=Complexity(input=(1, 3, size, size), params=1, flops=1))
    scores = {str(n): row.metrics.classes["plane"] for n in range(classes)}
    metrics = row.metrics.model_copy(update={"classes": scores})
    assert recipe_notes([replace(row, metrics=metrics)], published)[2] == text


def test_scores_on_other_labels_are_said_to_be_incomparable(make_row):
    rows = [make_row("yoloms-xs-previous"), make_row("yoloms-xs-current")]
    assert label_note(rows) is None and label_note([Row("mine", "mini")]) is None
    edited = rows[1].metrics.model_copy(update={"labels": "0123"})
    assert "not comparable" in label_note([rows[0], replace(rows[1], metrics=edited)])


def retrained(row: Row, **changes) -> Row:
    return replace(row, training=row.training.model_copy(update=changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"seed": 3, "device": "GPU"}, None),
        ({"epochs": 99}, "different epochs."),
        ({"images_per_step": 2, "learning_rate": 0.001}, "different images per step and learning rate."),
        ({"pretrained": "https://example.org/coco.pth"}, "different pretraining."),
        ({"data": {"patches": 7}}, "different training data."),
    ],
)
def test_a_pair_that_was_not_trained_alike(make_row, changes, said):
    previous, current = make_row("yoloms-xs-previous"), retrained(make_row("yoloms-xs-current"), **changes)
    *notes, chance = pair_notes([(previous, current)])
    assert "another seed" in chance
    names = "yoloms-xs-previous and yoloms-xs-current were not trained alike"
    assert notes == ([f"{names}: {said}"] if said else [])


def test_pairs_without_training_or_scores(make_row):
    bare = make_row("yoloms-xs-previous", training=None, metrics=None)
    assert pair_notes([(bare, bare)]) == () == pair_notes([])


def test_the_number_of_classes_is_known_without_scores(make_row, published):
    """A set without test labels has no scores, but its detector is still compared."""
    row = make_row("yoloms-xs-previous", metrics=None)
    assert "Parameters and FLOPs are comparable." in recipe_notes([row], published)
    notes = recipe_notes([retrained(row, data={"classes": 18})], published)
    assert any("a different number of classes" in note for note in notes)


def test_rows_on_other_ground_have_a_sign(make_row):
    """Two on the same labels and patches, one on other labels, one on other patches, one on both others."""

    def row(name: str, labels: str, contents: str) -> Row:
        found = retrained(make_row(name), data={"contents": contents})
        return replace(found, metrics=found.metrics.model_copy(update={"labels": labels}))

    rows = [
        row("yoloms-xs-previous", "a", "p"),
        row("yoloms-xs-current", "a", "p"),
        row("yoloms-s-previous", "b", "p"),
        row("yoloms-s-current", "a", "q"),
        row("yoloms-l-previous", "c", "q"),
    ]
    signs = grounds(rows)
    assert [signs.get(row.name, "") for row in rows] == ["", "", "†", "*", "‡*"]
    assert label_note(rows).startswith("†, ‡: scored on different labels")
    assert patch_note(rows).startswith("*: trained on different patches")
    assert model_table(rows, Path()).rows[4][0].text == "yoloms-l-previous ‡*"
    assert grounds(rows[:2]) == {row.name: "" for row in rows[:2]} and patch_note(rows[:2]) is None


def test_test_images_that_were_trained_on_are_said(make_row):
    row = make_row("yoloms-xs-previous")
    assert seen_note([row, replace(row, seen_before=0)]) is None
    assert seen_note([replace(row, seen_before=3)]).startswith("3 of the test images are among the training")


def test_pairs_without_any_object_have_nothing_to_say(make_row, with_outcomes):
    rows = [with_outcomes(name, 20) for name in ("yoloms-xs-previous", "yoloms-xs-current")]
    for row in rows:
        images, found = read_outcomes(row.outcomes)
        bare = replace(
            found["plane"], findable=found["plane"].findable[:0], matched=0 * found["plane"].matched
        )
        write_outcomes(row.outcomes, images, {"plane": bare})
    assert chance_note(*rows, uncertainty(rows)) is None
    assert pair_table(rows, uncertainty(rows)).rows[3][1].text == "–"
