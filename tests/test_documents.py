"""The examples in the documents, run as they are."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import zipfile
from pathlib import Path

import pytest

from tiltbox.__main__ import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
SHIP, FAR = "10 10 50 10 50 30 10 30", "100 10 140 10 140 30 100 30"


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / document).read_text(), re.MULTILINE | re.DOTALL)


def numbers(words: str) -> list[float]:
    return [float(word) for word in words.split()]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Results of the tools: only the ship, on a whole image and on two patches of it."""
    monkeypatch.chdir(tmp_path)
    for folder in ("val/labelTxt", "mmrotate", "devkit/patches", "ultralytics"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "val/labelTxt/P0001.txt").write_text(f"{SHIP} ship 0\n{FAR} ship 1\n")
    (tmp_path / "val/labelTxt/P0002.txt").write_text("")
    with zipfile.ZipFile(tmp_path / "mmrotate/Task1.zip", "w") as archive:
        archive.writestr("Task1_plane.txt", "")
        archive.writestr("Task1_ship.txt", f"P0001 0.91 {SHIP}\n")
    shifted = " ".join(str(float(word) - 5 * (k % 2 == 0)) for k, word in enumerate(SHIP.split()))
    lines = [f"P0001__1__0___0 0.9 {SHIP}\n", f"P0001__1__5___0 0.8 {shifted}\n"]
    (tmp_path / "devkit/patches/Task1_ship.txt").write_text("".join(lines))
    places = (("P0001__1024__0___0", SHIP), ("P0001__1024__5___0", shifted))
    predictions = [
        {"image_id": name, "file_name": f"{name}.jpg", "category_id": 2, "score": 0.9, "poly": numbers(poly)}
        for name, poly in places
    ]
    (tmp_path / "ultralytics/predictions.json").write_text(json.dumps(predictions))
    return tmp_path


def test_results_of_other_tools(results, capsys):
    commands = [line for block in blocks("other-tools.md", "") for line in block.splitlines()]
    assert len(commands) == 6
    for line in commands:
        words = shlex.split(line)
        assert words[0] == "tiltbox" and main(words[1:]) == 0, line
    compared = json.loads((results / "compare.json").read_text())["scores"]["AP50"]
    assert (compared["first"], compared["difference"], compared["low"]) == (pytest.approx(1), 0, 0)
    for name in ("scores", "merged-scores", "yolo-scores"):
        metrics = json.loads((results / name / "metrics.json").read_text())
        assert metrics["AP50"] == pytest.approx(1), name
        assert metrics["classes"]["ship"]["detections"] == 1, name


def test_predictions_of_whole_images(results):
    """Scored without a merge: the second of two equal boxes is one too many."""
    path = results / "ultralytics/predictions.json"
    rows = [{**row, "file_name": "P0001.png", "poly": numbers(SHIP)} for row in json.loads(path.read_text())]
    path.write_text(json.dumps(rows))
    assert main(["evaluate", str(path), "--labels", "val/labelTxt", "--out", "m.json"]) == 0
    assert json.loads((results / "m.json").read_text())["classes"]["ship"]["detections"] == 2


def test_the_bounds_of_the_angle_error(capsys):
    """The table in the document is what its code prints."""
    (code,) = blocks("metrics.md", "python")
    exec(compile(code, "metrics.md", "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    lines = (DOCS / "metrics.md").read_text().splitlines()
    table = [line.split("|")[2:-1] for line in lines if line.startswith(("| aspect", "| degrees"))]
    assert [[cell.strip() for cell in row] for row in table] == [
        list(row) for row in zip(*printed, strict=True)
    ]


def test_python():
    (code,) = blocks("other-tools.md", "python")
    exec(compile(code, "other-tools.md", "exec"), {})


# the site ------------------------------------------------------------------------------------------------


def test_every_page_is_on_the_site():
    pages = re.findall(r"^  - [^:]+: (\S+\.md)$", (DOCS.parent / "mkdocs.yml").read_text(), re.MULTILINE)
    from_the_root = {"index.md", "contributing.md"}
    assert set(pages) == {path.name for path in DOCS.glob("*.md")} | from_the_root


@pytest.mark.parametrize("name", re.findall(r"^::: (\S+)$", (DOCS / "python.md").read_text(), re.MULTILINE))
def test_what_the_site_documents_exists(name):
    module, _, member = name.rpartition(".")
    assert getattr(importlib.import_module(module), member).__doc__
