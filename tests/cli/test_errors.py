"""Errors that several verbs share: one line on stderr, which says where, what and what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "command",
    [
        "train yoloms-xs-curent --patches p --out {out}",
        "predict yoloms-xs-curent --checkpoint c --patches p --out {out}",
        "complexity yoloms-xs-curent --out {out}",
    ],
)
def test_unknown_variant(command, tmp_path, failure):
    line = failure(command, out=tmp_path / "out")
    assert line.endswith("unknown variant 'yoloms-xs-curent'; did you mean 'yoloms-xs-current'?")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        "download mnii --out {out}",
        "split {out} --out {out} --dataset mnii",
        "train yoloms-xs-current --patches p --out {out} --dataset mnii",
        "merge d --out {out} --dataset mnii",
        "evaluate t --labels l --out {out} --dataset mnii",
        "complexity yoloms-xs-current --out {out} --dataset mnii",
    ],
)
def test_unknown_dataset(command, tmp_path, failure):
    assert failure(command, out=tmp_path / "out").endswith("unknown dataset 'mnii'; did you mean 'mini'?")


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("download {no}/mine.yaml --out {no}", "/mine.yaml: file not found"),
        ("train yoloms-xs-current --patches {no} --out {no}", "/manifest.json: file not found"),
        ("train yoloms-xs-current --patches p --out o --schedule smok", "unknown schedule 'smok'"),
        ("merge {no}/detections.parquet --out {no}/merge", "/detections.parquet: "),
        ("evaluate {no} --labels {no} --out {no}/m.json", "nothing: folder not found"),
        ("report {no} --out {no}", "nothing: folder not found"),
    ],
)
def test_missing_input(command, where, tmp_path, failure):
    assert where in failure(command, no=tmp_path / "nothing")


@pytest.mark.parametrize(
    "command",
    [
        "download mini --out {file}/out",
        "split {source} --out {file}/out",
        "complexity yoloms-xs-current --out {file}/out.json",
        "evaluate {source} --labels {source}/labelTxt --out {file}/out.json",
    ],
)
def test_where_nothing_can_be_written(command, source, tmp_path, failure):
    (tmp_path / "file").write_text("mine")
    (source / "Task1_ship.txt").write_text("")
    line = failure(command, source=source, file=tmp_path / "file")
    assert f"{tmp_path / 'file'}: cannot write here (" in line


def test_debug_gives_the_traceback(tmp_path):
    command = [sys.executable, "-m", "tiltbox", "report", str(tmp_path / "nothing"), "--out", str(tmp_path)]
    plain, debug = (
        subprocess.run(words, capture_output=True, text=True, check=False)
        for words in (command, [*command, "--debug"])
    )
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert plain.stderr.count("\n") == 1 and "Traceback" not in plain.stderr
    assert "Traceback (most recent call last)" in debug.stderr and "DataError" in debug.stderr


def test_the_unforeseen_is_one_line_too(monkeypatch, tmp_path, failure, run):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device", "patch.png")

    monkeypatch.setattr("tiltbox.stages.split.split", fail)
    line = failure("split src --out {out}", out=tmp_path)
    assert "OSError: [Errno 28] No space left on device: 'patch.png'" in line
    with pytest.raises(OSError, match="No space left"):
        run("split src --out {out} --debug", out=tmp_path)


def test_interrupted(monkeypatch, tmp_path, capsys, run):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tiltbox.stages.split.split", interrupt)
    assert run("split src --out {out}", out=tmp_path) == 130
    assert capsys.readouterr().err == "tiltbox split: interrupted\n"
