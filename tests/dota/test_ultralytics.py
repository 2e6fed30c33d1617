"""predictions.json, as Ultralytics 8.4 writes it."""

from __future__ import annotations

import json

import pytest

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.results import read_results
from tiltbox.dota.ultralytics import DOTA_V1_NAMES, category_names
from tiltbox.errors import DataError

POLY = [14.0, 9.0, 10.0, 9.0, 10.0, 7.0, 14.0, 7.0]


def prediction(category: int = 2, **changes: object) -> dict:
    row = {
        "image_id": "P0006__1024__0___0",
        "file_name": "P0006__1024__0___0.png",
        "category_id": category,
        "score": 0.91235,
        "rbox": [12.0, 8.0, 4.0, 2.0, 0.0],
        "poly": POLY,
    }
    return {key: value for key, value in {**row, **changes}.items() if value is not None}


def written(folder, *rows: object):
    path = folder / "predictions.json"
    path.write_text(json.dumps(rows))
    return path


def test_nothing(tmp_path):
    found = read_results(written(tmp_path), DOTA_V1_CLASSES)
    assert list(found) == list(DOTA_V1_CLASSES)
    assert {len(part) for part in found.values()} == {0}


def test_predictions(tmp_path):
    found = read_results(written(tmp_path, prediction(2), prediction(15), prediction(2)), DOTA_V1_CLASSES)
    assert {name: len(part) for name, part in found.items() if len(part)} == {"ship": 2, "swimming-pool": 1}
    ships = found["ship"]
    assert ships.images == ["P0006__1024__0___0"] * 2 and ships.scores.tolist() == [0.91235] * 2
    assert ships.qboxes.tolist() == [POLY] * 2
    assert ships.where(1) == f"{tmp_path}/predictions.json: prediction 3"


def test_images_whose_names_are_numbers(tmp_path):
    """The image_id has lost its zeros; older versions did not write file_name."""
    rows = prediction(image_id=7, file_name="0007.jpg"), prediction(image_id=7, file_name=None)
    assert read_results(written(tmp_path, *rows), DOTA_V1_CLASSES)["ship"].images == ["0007", "7"]


def test_files_of_versions_that_may_count_from_0_are_told(tmp_path, caplog):
    read_results(written(tmp_path, prediction()), DOTA_V1_CLASSES)
    assert not caplog.records
    read_results(written(tmp_path, prediction(file_name=None)), DOTA_V1_CLASSES)
    assert "categories are taken to count from 1" in caplog.text


def test_names():
    assert set(DOTA_V1_NAMES) == set(DOTA_V1_CLASSES)
    assert category_names(DOTA_V1_CLASSES) == DOTA_V1_NAMES
    assert category_names(("ship", "car")) == ("ship", "car")


@pytest.mark.parametrize("text", ["names: {0: ship, 1: storage tank}", "names: [ship, storage tank]"])
def test_names_of_a_data_file(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    assert category_names(DOTA_V1_CLASSES, tmp_path / "data.yaml") == ("ship", "storage-tank")
    found = read_results(written(tmp_path, prediction(2)), DOTA_V1_CLASSES, tmp_path / "data.yaml")
    assert len(found["storage-tank"]) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("names: {0: boat}", "unknown class 'boat'"),
        ("train: images", "contains no list of names"),
        ("[1, 2]", "contains no list of names"),
        ("names: {1: ship}", "contains no list of names"),
        ("a: [", "contains no list of names"),
        ("names: [2024-99-99]", "contains no list of names"),
    ],
)
def test_malformed_data_files(tmp_path, text, problem):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=problem):
        category_names(DOTA_V1_CLASSES, tmp_path / "data.yaml")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (prediction(16), r"prediction 2: is of category 16, but there are 15; .* --names"),
        (prediction(0), r"is of category 0: they count from 1, .* 8\.3\.60 or newer"),
        (prediction(category=2.5), "is of category 2.5, but"),
        (prediction(category=True), "has no valid .*True is not a number"),
        (prediction(score=10**400), "has no valid"),
        (prediction(poly="12345678"), "has no valid"),
        (prediction(poly=["1_0"] * 8), "has no valid"),
        (prediction(file_name="\ud800.png"), "has no valid"),
        (prediction(poly=[1, 2]), "has a poly of 2 numbers"),
        (prediction(poly=None), "has no valid category_id, score, poly and image_id"),
        (prediction(score="high"), "has no valid"),
        (7, "has no valid"),
    ],
)
def test_malformed_predictions(tmp_path, row, problem):
    with pytest.raises(DataError, match=problem):
        read_results(written(tmp_path, prediction(), row), DOTA_V1_CLASSES)


@pytest.mark.parametrize("text", ["{}", "[1", "", "[" * 100_000])
def test_other_json(tmp_path, text):
    (tmp_path / "predictions.json").write_text(text)
    with pytest.raises(DataError, match=r"predictions\.json: is not (a|valid)"):
        read_results(tmp_path / "predictions.json", DOTA_V1_CLASSES)
