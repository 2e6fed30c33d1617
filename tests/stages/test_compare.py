from __future__ import annotations

import json
import shutil

import pytest

from tiltbox.__main__ import main
from tiltbox.errors import DataError, OutputError, SettingsError
from tiltbox.stages.compare import FEW_IMAGES, compare, comparison_table
from tiltbox.stages.evaluate import evaluate

SHIP, FAR = "0 0 10 0 10 10 0 10", "90 90 99 90 99 99 90 99"
CLASSES = ("ship", "plane")
IMAGES = 24


@pytest.fixture
def scene(tmp_path):
    """A ship in each image: ``good`` finds all, ``poor`` every third. Neither finds a plane."""
    labels = tmp_path / "labelTxt"
    labels.mkdir()
    for number in range(IMAGES):
        (labels / f"P{number}.txt").write_text(f"{SHIP} ship 0\n{FAR} plane {number % 2}\n")
    for name, step in (("good", 1), ("poor", 3)):
        (tmp_path / name).mkdir()
        lines = [f"P{number} 0.{900 - number} {SHIP}\n" for number in range(0, IMAGES, step)]
        (tmp_path / name / "Task1_ship.txt").write_text("".join(lines))
        (tmp_path / name / "Task1_plane.txt").write_text("")
    return tmp_path


def run(scene, first: str = "poor", second: str = "good", **options):
    runs = ([scene / name for name in names.split(",")] for names in (first, second))
    return compare(*runs, scene / "labelTxt", scene / "compare.json", classes=CLASSES, **options)


def test_what_is_written(scene):
    run(scene, resamples=300, seed=7)
    written = json.loads((scene / "compare.json").read_text())
    assert list(written) == ["images", "runs", "resamples", "seed", "scores", "classes"]
    assert (written["images"], written["resamples"], written["seed"]) == (IMAGES, 300, 7)
    assert list(written["scores"]) == ["AP50", "AP75", "mAP"] and list(written["classes"]) == [
        "ship",
        "plane",
    ]
    for name, metrics in (("first", "poor"), ("second", "good")):
        truth = evaluate(
            scene / metrics, scene / "labelTxt", scene / f"{metrics}/metrics.json", classes=CLASSES
        )
        for key in ("AP50", "AP75", "mAP"):
            assert written["scores"][key][name] == truth[key]
            assert written["classes"]["ship"][key][name] == truth["classes"]["ship"][key]
    score = written["scores"]["AP50"]
    assert list(score) == ["first", "second", "difference", "low", "high"]
    assert score["difference"] == score["second"] - score["first"] > 0
    assert 0 < score["low"] < score["difference"] <= score["high"]


def test_the_table(scene):
    """Of the ships that ``poor`` is to find, 95 % of the draws have 12 to 54 %: an AP of 2/11 to 6/11."""
    assert (
        comparison_table(run(scene))
        == """\
      first  second  difference     95 % interval
AP50  18.18   50.00      +31.82  +22.73 to +40.91
AP75  18.18   50.00      +31.82  +22.73 to +40.91
mAP   18.18   50.00      +31.82  +22.73 to +40.91

AP50 of  first  second  difference     95 % interval
ship     36.36  100.00      +63.64  +45.45 to +81.82
plane     0.00    0.00       ±0.00    ±0.00 to ±0.00  no difference can be seen

Intervals come from a paired bootstrap: 1,000 draws of 24 images, the same for both (seed 0).
If a detector has only one run, the variation between trainings is not included."""
    )


def test_several_runs(scene):
    shutil.copytree(scene / "good", scene / "good2")
    found = run(scene, "good,good2", "poor,good")
    text = comparison_table(found)
    assert found.runs == (2, 2)
    assert "the same for both, and of their runs (seed 0)." in text and "not included" not in text
    assert found.scores["AP50"].first == pytest.approx(0.5) and found.scores["AP50"].second < 0.4


def test_a_class_that_no_resample_drew_has_no_interval(scene):
    for number in range(1, IMAGES):  # a plane is left in the first image, which the only resample misses
        (scene / f"labelTxt/P{number}.txt").write_text(f"{SHIP} ship 0\n")
    table = comparison_table(run(scene, resamples=1, seed=2))
    assert "plane     0.00    0.00       ±0.00                 –  too few resamples" in table


def test_few_images_are_warned_of(scene):
    for number in range(FEW_IMAGES - 1, IMAGES):
        (scene / f"labelTxt/P{number}.txt").unlink()
    for name in ("good", "poor"):
        path = scene / name / "Task1_ship.txt"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if int(line.split()[0][1:]) < FEW_IMAGES - 1))
    assert "With only 19 images, intervals tend to be too narrow." in comparison_table(run(scene))


def test_one_image_cannot_be_resampled(scene):
    for number in range(1, IMAGES):
        (scene / f"labelTxt/P{number}.txt").unlink()
    with pytest.raises(DataError, match="labelTxt: has the labels of only one image"):
        run(scene)


def test_images_without_labels(scene):
    (scene / "good/Task1_ship.txt").write_text(f"P99 0.5 {SHIP}\n")
    with pytest.raises(DataError, match=r"Task1_ship\.txt:1: there are no labels for image 'P99'"):
        run(scene)
    assert not (scene / "compare.json").exists()


@pytest.mark.parametrize("place", ["good/x.json", "labelTxt/x.json"])
def test_places_among_the_inputs_are_refused(scene, place):
    with pytest.raises(OutputError, match="which is an input of this command"):
        compare([scene / "poor"], [scene / "good"], scene / "labelTxt", scene / place, classes=CLASSES)


def test_the_command(scene, capsys, monkeypatch):
    monkeypatch.chdir(scene)
    (scene / "own.yaml").write_text(
        "name: own\nsource: {folder: .}\ntrain_splits: [train]\ntest_split: val\nclasses: [ship, plane]\n"
    )
    for split in ("train", "val"):
        shutil.copytree(scene / "labelTxt", scene / split / "labelTxt")
        (scene / split / "images").mkdir()
    command = ["--labels", "labelTxt", "--dataset", "own.yaml", "--resamples", "200", "--out", "c.json"]
    assert main(["compare", "poor,poor", "good", *command]) == 0
    assert "runs" in capsys.readouterr().out
    assert json.loads((scene / "c.json").read_text())["runs"] == {"first": 2, "second": 1}
    (scene / "a,b").mkdir()
    shutil.copy(scene / "good/Task1_ship.txt", scene / "a,b")
    assert main(["compare", "a,b", "good", *command]) == 0  # a folder with a comma in its name


@pytest.mark.parametrize("options", [["--resamples", "99"], ["--seed", "-1"], ["--resamples", "x"]])
def test_wrong_usage(scene, options, capsys):
    with pytest.raises(SystemExit) as end:
        main(["compare", "a", "b", "--labels", "c", *options])
    assert end.value.code == 2
    capsys.readouterr()


def test_names_are_for_predictions_alone(scene, tmp_path):
    """One detector is Ultralytics', with classes in its own order; the other's files name theirs."""
    (tmp_path / "data.yaml").write_text("names: [plane, ship]\n")
    right = {"category_id": 2, "score": 0.9, "poly": [int(word) for word in SHIP.split()]}
    rows = [{**right, "image_id": f"P{n}", "file_name": f"P{n}.png"} for n in range(IMAGES)]
    (tmp_path / "predictions.json").write_text(json.dumps(rows))
    found = compare(
        [scene / "good"],
        [tmp_path / "predictions.json"],
        scene / "labelTxt",
        classes=CLASSES,
        data_file=tmp_path / "data.yaml",
    )
    assert found.classes["ship"]["AP50"].first == found.classes["ship"]["AP50"].second == pytest.approx(1)
    with pytest.raises(SettingsError, match=r"is only for a predictions\.json"):
        run(scene, data_file=tmp_path / "data.yaml")


@pytest.mark.parametrize("runs", [",", "good,", ",good", ""])
def test_nothing_between_commas(scene, runs, monkeypatch, capsys):
    monkeypatch.chdir(scene)
    with pytest.raises(SystemExit) as end:
        main(["compare", runs, "good", "--labels", "labelTxt"])
    assert end.value.code == 2 and "has nothing between two commas" in capsys.readouterr().err
