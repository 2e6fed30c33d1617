"""docs/adding-a-detector.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
from programs import BIN, ROOT, tried

MOST_FILES = 5
# A file's path at the beginning of a line, what is said about it, and its content or what changes in it.
FILES = re.compile(
    r"^`([\w/.]+/[\w/.]+)`[^\n]*\n(?:[^\n]+\n)*\n```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
CHANGES = re.compile(r"((?:^-.*\n)+)((?:^\+.*\n)+)", re.MULTILINE)


def follow(document: Path, project: Path) -> list[Path]:
    """Write and change the files of the document; returns them."""
    files = []
    for path, language, text in FILES.findall(document.read_text()):
        file = project / path
        files.append(file)
        if language == "python":
            assert not file.exists()
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        elif language == "yaml":
            file.write_text(f"{file.read_text()}\n{text}")
        else:
            file.write_text(changed(file.read_text(), text))
    return files


def changed(text: str, difference: str) -> str:
    for pair in CHANGES.findall(difference):
        old, new = (re.sub(r"^[-+]", "", lines, flags=re.MULTILINE) for lines in pair)
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def project(copy_project, tmp_path_factory) -> Path:
    """A copy with its own source code, to which the family of the document was added."""
    folder = copy_project(tmp_path_factory.mktemp("family") / "project")
    shutil.copytree(ROOT / "src", folder / "src")  # with compiled code, which takes half a minute to make
    files = follow(ROOT / "docs/adding-a-detector.md", folder)
    assert len(set(files)) == len(files) <= MOST_FILES
    return folder


@pytest.mark.timeout(600)  # on a new machine, it also compiles the compiled loops
def test_a_new_family_goes_through_every_stage(project):
    settings = ["--config", "dataset=tiny", "variants=plain-s,yoloms-xs-previous", "gpus=0"]
    source = {"PYTHONPATH": str(project / "src")}
    done = tried(BIN / "snakemake", "--cores", "2", "all_variants", *settings, at=project, **source)
    assert done.returncode == 0, done.stdout + done.stderr
    with (project / "results/tiny/leaderboard.csv").open() as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert (rows["plain-s"]["series"], rows["plain-s"]["size"]) == ("Plain", "s")
    assert int(rows["plain-s"]["params"]) < 200_000 and rows["plain-s"]["AP50"]
    page = (project / "results/tiny/leaderboard.html").read_text()
    assert ">Plain<" in page and "yoloms-xs-previous" in page
    assert (
        "plain-s − yoloms-xs-previous"
        in tried(BIN / "tiltbox", "report", "results/tiny", at=project, **source).stdout
    )


def test_a_misspelt_key_of_the_new_family(project, tmp_path):
    table = project / "configs/variants.yaml"
    text = table.read_text()
    table.write_text(text.replace("    channels: 32\n", "    chanels: 32\n"))
    done = tried(BIN / "snakemake", "--dry-run", at=project, PYTHONPATH=str(project / "src"))
    table.write_text(text)
    assert done.returncode == 1
    assert "variants.plain-s.chanels: unknown key; did you mean 'channels'?" in done.stderr
