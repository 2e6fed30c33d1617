from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import shapely

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.detections import Detections, write_detections
from tiltbox.dota.task1 import read_task1
from tiltbox.errors import DataError, OutputError, SettingsError
from tiltbox.files.atomic import MARK
from tiltbox.geometry.boxes import rbox_to_qbox
from tiltbox.stages.merge import merge

BOX = (50, 50, 20, 10, 0)
CORNERS = "40.00 45.00 60.00 45.00 60.00 55.00 40.00 55.00"


def parquet(tmp_path, rows: list[tuple]):
    """Rows of (image, x, y, class, score, rbox)."""
    image, x, y, classes, score, rboxes = zip(*rows, strict=True) if rows else ((),) * 6
    size = np.full(len(rows), 1024)
    path = tmp_path / "detections.parquet"
    found = Detections.from_columns(
        image=image, x=x, y=y, size=size, classes=classes, score=score, rboxes=np.array(rboxes)
    )
    write_detections(path, found)
    return path


def patch_folder(tmp_path, **lines: list[str]):
    folder = tmp_path / "patches"
    folder.mkdir()
    for name, content in lines.items():
        (folder / f"Task1_{name}.txt").write_text("".join(f"{line}\n" for line in content))
    return folder


def lines_of(out, name: str) -> list[str]:
    return (out / f"Task1_{name}.txt").read_text().splitlines()


def test_nothing(tmp_path):
    out = tmp_path / "merge"
    result = merge(parquet(tmp_path, []), out)
    assert result == {
        "images": 0, "detections": 0, "not_finite": 0, "without_area": 0, "kept": 0,
        "classes": dict.fromkeys(DOTA_V1_CLASSES, 0),
    }  # fmt: skip
    names = [f"Task1_{name}.txt" for name in DOTA_V1_CLASSES]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "Task1.zip", MARK])
    assert all((out / name).read_bytes() == b"" for name in names)
    assert zipfile.ZipFile(out / "Task1.zip").namelist() == names


def test_overlapping_patches(tmp_path):
    """One ship seen from two patches, 824 px apart, and a plane in the same place."""
    path = parquet(
        tmp_path,
        [
            ("P1", 0, 0, "ship", 0.5, (874, 50, 20, 10, 0)),
            ("P1", 824, 0, "ship", 0.75, (50.5, 50, 20, 10, 0)),
            ("P1", 824, 0, "plane", 0.25, (50, 50, 20, 10, 0)),
            ("P0", 824, 0, "ship", 0.125, (50, 50, 20, 10, 0)),
        ],
    )
    result = merge(path, tmp_path / "merge")
    assert lines_of(tmp_path / "merge", "ship") == [
        "P0 0.125000000 864.00 45.00 884.00 45.00 884.00 55.00 864.00 55.00",
        "P1 0.750000000 864.50 45.00 884.50 45.00 884.50 55.00 864.50 55.00",
    ]
    assert lines_of(tmp_path / "merge", "plane") == [
        "P1 0.250000000 864.00 45.00 884.00 45.00 884.00 55.00 864.00 55.00"
    ]
    assert (result["images"], result["detections"], result["kept"]) == (2, 4, 3)
    assert {name: count for name, count in result["classes"].items() if count} == {"plane": 1, "ship": 2}


@pytest.mark.parametrize(
    ("patch", "image", "corners"),
    [
        ("P1__1024__0___0", "P1", (10, 20, 30, 20, 30, 40, 10, 40)),
        ("P1__1024__824___100", "P1", (834, 120, 854, 120, 854, 140, 834, 140)),
        ("a__b__512__10___0", "a__b", (20, 20, 40, 20, 40, 40, 20, 40)),
        ("P1__1__824___0", "P1", (834, 20, 854, 20, 854, 40, 834, 40)),
        ("P1__0.5__824___100", "P1", (1668, 240, 1708, 240, 1708, 280, 1668, 280)),
        ("P1__2__824___100", "P1", (417, 60, 427, 60, 427, 70, 417, 70)),
    ],
)
def test_patch_names(tmp_path, patch, image, corners):
    folder = patch_folder(tmp_path, ship=[f"{patch} 0.5 10 20 30 20 30 40 10 40"])
    merge(folder, tmp_path / "merge")
    assert lines_of(tmp_path / "merge", "ship") == [
        f"{image} 0.500000000 {' '.join(f'{number:.2f}' for number in corners)}"
    ]


def test_parquet_and_task1_say_the_same(tmp_path):
    rng = np.random.default_rng(0)
    rows, lines = [], {"ship": [], "harbor": []}
    for _ in range(300):
        image, x, y, name = f"P{rng.integers(3)}", *rng.integers(0, 3, 2) * 50, rng.choice(["ship", "harbor"])
        score = float(np.float32(rng.integers(1, 30) / 30))
        rbox = np.float32([*rng.uniform(0, 150, 2), *rng.uniform(10, 40, 2), rng.uniform(-1.5, 1.5)])
        rows.append((image, x, y, name, score, rbox))
        corners = " ".join(map(repr, rbox_to_qbox([rbox])[0].tolist()))
        lines[name].append(f"{image}__200__{x}___{y} {score!r} {corners}")
    merge(parquet(tmp_path, rows), tmp_path / "a")
    merge(patch_folder(tmp_path, **lines), tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert lines_of(tmp_path / "a", "ship") == brute_force([row for row in rows if row[3] == "ship"], 0.1)


def brute_force(rows: list[tuple], threshold: float) -> list[str]:
    """The lines of one class, computed with plain lists and shapely."""
    lines = []
    for image in sorted({row[0] for row in rows}):
        kept: list[shapely.Polygon] = []
        for _, x, y, _, score, rbox in sorted((r for r in rows if r[0] == image), key=lambda row: -row[4]):
            corners = np.add(rbox_to_qbox([rbox]).reshape(4, 2), [x, y])
            box = shapely.Polygon(corners)
            if all(box.intersection(o).area <= threshold * box.union(o).area for o in kept):
                kept.append(box)
                lines.append(f"{image} {score:.9f} {' '.join(f'{number:.2f}' for number in corners.ravel())}")
    return lines


def test_the_same_bytes_every_time(tmp_path):
    path = parquet(tmp_path, [("P1", 0, 0, "ship", 0.5, BOX), ("P1", 0, 0, "ship", 0.5, BOX)])
    for name in ("a", "b"):
        merge(path, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_the_order_of_images_is_that_of_their_names(tmp_path):
    rows = [(image, 0, 0, "ship", 0.5, BOX) for image in ("P2", "P10", "P1")]
    merge(parquet(tmp_path, rows), tmp_path / "merge")
    assert [line.split()[0] for line in lines_of(tmp_path / "merge", "ship")] == ["P1", "P10", "P2"]


@pytest.mark.parametrize(("iou", "kept"), [(0.1, 1), (0.5, 2), (1.0, 2)])
def test_the_threshold(tmp_path, iou, kept):
    half = (50, 52.5, 20, 5, 0)  # IoU 1/2
    path = parquet(tmp_path, [("P1", 0, 0, "ship", 0.5, BOX), ("P1", 0, 0, "ship", 0.25, half)])
    assert merge(path, tmp_path / "merge", iou=iou)["kept"] == kept


@pytest.mark.parametrize("iou", [-0.1, 1.5, float("nan")])
def test_impossible_thresholds(tmp_path, iou):
    with pytest.raises(SettingsError, match="iou"):
        merge(parquet(tmp_path, []), tmp_path / "merge", iou=iou)


def test_boxes_that_are_not_boxes(tmp_path):
    nan, inf = float("nan"), float("inf")
    rows = [
        ("P1", 0, 0, "ship", 0.875, (50, 50, 0, 0, 0)),
        ("P1", 0, 0, "ship", 0.75, (50, 50, 20, 0, 0.3)),
        ("P1", 0, 0, "ship", 0.5, BOX),
        ("P1", 0, 0, "ship", nan, BOX),
        ("P1", 0, 0, "ship", 0.6, (nan, 50, 20, 10, 0)),
        ("P1", 0, 0, "ship", 0.6, (50, 50, inf, 10, 0)),
    ]
    result = merge(parquet(tmp_path, rows), tmp_path / "merge")
    counts = {name: result[name] for name in ("detections", "not_finite", "without_area", "kept")}
    assert counts == {"detections": 6, "not_finite": 3, "without_area": 2, "kept": 3}
    scores = [float(line.split()[1]) for line in lines_of(tmp_path / "merge", "ship")]
    assert scores == [0.875, 0.75, 0.5]


def test_other_classes(tmp_path):
    path = parquet(tmp_path, [("P1", 0, 0, "ship", 0.5, BOX), ("P1", 0, 0, "boat", 0.5, BOX)])
    with pytest.raises(DataError, match="unknown class 'boat'"):
        merge(path, tmp_path / "merge")
    assert not (tmp_path / "merge").exists()
    assert merge(path, tmp_path / "merge", classes=("boat", "ship"))["classes"] == {"boat": 1, "ship": 1}
    assert sorted(p.name for p in (tmp_path / "merge").glob("*.txt")) == ["Task1_boat.txt", "Task1_ship.txt"]


@pytest.mark.parametrize("name", ["P0001", "P1__1024__0__0", "P1__0__0___0"])
def test_names_of_whole_images_are_not_patch_names(tmp_path, name):
    folder = patch_folder(tmp_path, plane=[], ship=["P1__1__0___0 0.5" + " 1" * 8, f"{name} 0.5" + " 1" * 8])
    with pytest.raises(DataError, match=rf"Task1_ship\.txt:2: '{name}' is not the name of a patch"):
        merge(folder, tmp_path / "merge")


def test_no_detections(tmp_path):
    for source in (tmp_path / "none.parquet", tmp_path / "none", tmp_path / "none.zip"):
        with pytest.raises(DataError, match="not found"):
            merge(source, tmp_path / "merge")


def test_an_earlier_merge_is_replaced(tmp_path):
    out = tmp_path / "merge"
    merge(parquet(tmp_path, [("P1", 0, 0, "ship", 0.5, BOX)]), out)
    assert lines_of(out, "ship") == [f"P1 0.500000000 {CORNERS}"]
    merge(parquet(tmp_path, []), out)
    assert lines_of(out, "ship") == []


def test_an_earlier_merge_of_other_classes_is_replaced(tmp_path):
    merge(parquet(tmp_path, []), tmp_path / "merge", classes=("boat", "ship"))
    merge(parquet(tmp_path, []), tmp_path / "merge", classes=("ship",))
    assert [path.name for path in (tmp_path / "merge").glob("*.txt")] == ["Task1_ship.txt"]


def test_a_merge_that_snakemake_has_emptied_is_replaced(tmp_path):
    merge(parquet(tmp_path, []), tmp_path / "merge")
    for path in (tmp_path / "merge").glob("Task1*"):
        path.unlink()
    merge(parquet(tmp_path, []), tmp_path / "merge")
    assert (tmp_path / "merge/Task1.zip").exists()


@pytest.mark.parametrize("name", ["thesis.txt", "Task1_ship.txt", ".git"])
def test_what_is_not_a_merge_stays(tmp_path, name):
    out = tmp_path / "mine"
    out.mkdir()
    (out / name).write_text("years of work")
    with pytest.raises(OutputError, match="does not say that 'tiltbox merge' wrote it"):
        merge(parquet(tmp_path, []), out)
    assert (out / name).read_text() == "years of work"
    with pytest.raises(OutputError, match="is a file"):
        merge(parquet(tmp_path, []), out / name)


@pytest.mark.parametrize("source", ["detections.parquet", "detections"])
def test_the_detections_are_not_replaced_by_their_merge(tmp_path, source):
    merge(parquet(tmp_path, []), tmp_path / "merge")
    moved = (tmp_path / "detections.parquet").rename(tmp_path / "merge" / source)
    for out in (tmp_path / "merge", tmp_path):
        with pytest.raises(OutputError, match="which it is made from"):
            merge(moved, out)
    assert moved.exists()


def test_patch_detections_are_not_replaced_by_their_merge(tmp_path):
    folder = patch_folder(tmp_path, ship=["P1__1024__0___0 0.5 1 1 2 1 2 2 1 2"])
    with pytest.raises(OutputError, match="which it is made from"):
        merge(folder, folder)


def test_a_merge_can_be_merged_and_scored(tmp_path):
    """Its mark is not a Task1 file."""
    merge(parquet(tmp_path, [("P1__1024__0___0", 0, 0, "ship", 0.5, BOX)]), tmp_path / "merge")
    assert merge(tmp_path / "merge", tmp_path / "again")["kept"] == 1
    assert len(read_task1(tmp_path / "merge", DOTA_V1_CLASSES)["ship"]) == 1
    assert not any(MARK in name for name in zipfile.ZipFile(tmp_path / "merge/Task1.zip").namelist())


def test_pandas_is_not_imported(tmp_path):
    """Arrow tends to import it, which takes as long as the rest of the start-up."""
    path, merged = parquet(tmp_path, [("P1", 0, 0, "ship", 0.5, BOX)]), tmp_path / "merge"
    code = (
        "import sys\n"
        "from tiltbox.__main__ import main\n"
        f"main(['merge', '{path}', '--out', '{merged}'])\n"
        f"main(['evaluate', '{merged}', '--labels', '{tmp_path}/labels', '--out', '{tmp_path}/m.json'])\n"
        "assert 'pandas' not in sys.modules\n"
    )
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/P1.txt").touch()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "m.json").exists()


@pytest.mark.parametrize("far", [2e7, 1.7e308])
def test_boxes_beyond_any_image_are_dropped_whatever_they_come_from(tmp_path, far):
    name = "P1__1024__0___0"
    row = {"file_name": f"{name}.png", "category_id": 2, "score": 0.5}
    polys = [[0, 0, far, 0, far, far, 0, far], [0, 0, 9, 0, 9, 5, 0, 5]]
    (tmp_path / "predictions.json").write_text(json.dumps([{**row, "poly": poly} for poly in polys]))
    result = merge(tmp_path / "predictions.json", tmp_path / "out")
    assert (result["not_finite"], result["kept"]) == (1, 1)
    assert len(lines_of(tmp_path / "out", "ship")) == 1


@pytest.mark.parametrize("name", ["my img__1024__0___0", "a\nb__1024__0___0"])
def test_names_that_result_files_cannot_hold(tmp_path, name):
    row = {"file_name": f"{name}.png", "category_id": 2, "score": 0.5, "poly": [0, 0, 9, 0, 9, 5, 0, 5]}
    (tmp_path / "predictions.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"prediction 1: .* contains whitespace"):
        merge(tmp_path / "predictions.json", tmp_path / "out")


@pytest.mark.parametrize("number", ["9" * 20, "9" * 5000])
def test_patches_nowhere(tmp_path, number):
    line = f"P1__1024__{number}___0 0.5 {CORNERS}"
    with pytest.raises(DataError, match=r"Task1_ship\.txt:1: .* is not the name of a patch"):
        merge(patch_folder(tmp_path, ship=[line]), tmp_path / "out")
