from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiltbox import __version__
from tiltbox.__main__ import main
from tiltbox.cli import parser
from tiltbox.dota.images import write_png

STAGES = ["download", "split", "train", "predict", "merge", "evaluate", "complexity", "report"]
VERBS = [*STAGES, "compare", "verify", "status", "tracking", "track", "weights"]
TILTBOX = Path(sys.executable).parent / "tiltbox"
SHIP = "0 0 9 0 9 5 0 5 ship 0\n"
Usage = namedtuple("Usage", "total used free")


def run(command: str, **paths: Path) -> int:
    """The exit code of a command; ``{name}`` stands for one of the paths."""
    words = shlex.split(command)
    try:
        return main([word.format(**paths) for word in words])
    except SystemExit as end:
        return end.code


def failure(capsys, command: str, **paths: Path) -> str:
    """The one line on stderr of a command that must end with code 1."""
    assert run(command, **paths) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith(f"tiltbox {command.split()[0]}: "), err
    return err.strip()


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder with one image, and a label file with one ship."""
    folder = tmp_path / "source"
    for name in ("images", "labelTxt"):
        (folder / name).mkdir(parents=True)
    write_png(folder / "images/P1.png", np.full((64, 64, 3), 80, np.uint8))
    (folder / "labelTxt/P1.txt").write_text(SHIP)
    return folder


# how it is called ---------------------------------------------------------------------------------------


def test_nothing_is_wrong_usage(capsys):
    assert run("") == 2
    assert "the following arguments are required: STAGE" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb, capsys):
    assert run(f"{verb} --help") == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: tiltbox {verb} ") and err == ""
    assert "--debug" in out


def test_help_lists_the_verbs(capsys):
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert re.findall(r"^    (\w+)", out, flags=re.MULTILINE) == VERBS


@pytest.mark.parametrize(
    "command",
    [
        "download mini --out DIR",
        "download dota --out DIR",
        "download path/to/dataset.yaml --out DIR",
        "split SRC --out DIR",
        "split SRC SRC2 --out DIR --size 512 --overlap 100 --rates 0.5 1.0 1.5 --iof 0.5 --workers 3",
        "train yoloms-xs-current --patches DIR --out DIR",
        "train yoloms-xs-current --patches DIR --out DIR --gpus 2 --schedule dota-2gpu --resume",
        "train yoloms-xs-current --patches DIR --out DIR --gpus 0 --schedule mine.yaml --no-resume",
        "predict yoloms-xs-current --checkpoint FILE --patches DIR --out FILE.parquet",
        "merge DETECTIONS --out DIR",
        "merge DETECTIONS --out DIR --iou 0.2",
        "evaluate TASK1_DIR --labels DIR --out FILE.json",
        "evaluate TASK1_DIR --labels DIR --out FILE.json --absent-classes zero",
        "complexity yoloms-xs-current --out FILE.json",
        "complexity yoloms-xs-current --out FILE.json --size 512",
        "report RESULTS_DIR --out DIR",
    ],
)
def test_spellings_of_the_design(command):
    assert parser().parse_args(command.split()).stage == command.split()[0]


def test_defaults_of_the_design():
    split = parser().parse_args(["split", "SRC", "--out", "DIR"])
    assert (split.size, split.overlap, split.rates, split.iof, split.workers) == (1024, 200, [1.0], 0.7, None)
    assert parser().parse_args(["merge", "D", "--out", "DIR"]).iou == 0.1
    assert parser().parse_args(["complexity", "V", "--out", "F"]).size == 1024
    train = parser().parse_args(["train", "V", "--patches", "DIR", "--out", "DIR"])
    assert (train.resume, train.gpus) == (True, None)


@pytest.mark.parametrize(("text", "count"), [("auto", None), ("0", 0), ("2", 2)])
def test_gpus(text, count):
    assert parser().parse_args(["train", "v", "--patches", "p", "--out", "o", "--gpus", text]).gpus == count


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fly", "invalid choice: 'fly'"),
        ("split --out out", "the following arguments are required: SRC"),
        ("split src", "the following arguments are required: --out"),
        ("split src --out out --size big", "argument --size: 'big' is not an integer of at least 1"),
        ("split src --out out --size 0", "argument --size: '0' is not an integer of at least 1"),
        ("split src --out out --workers 0", "argument --workers: '0' is not an integer of at least 1"),
        ("split src --out out --rates", "argument --rates: expected at least one argument"),
        (
            "train v --patches p --out out --gpus -1",
            "argument --gpus: '-1' is not an integer of at least 0",
        ),
        (
            "train v --patches p --out out --processes 0",
            "argument --processes: '0' is not an integer of at least 1",
        ),
        ("predict v --patches p --out out", "the following arguments are required: --checkpoint"),
        ("merge d --out out --iou wide", "argument --iou: invalid float value: 'wide'"),
        ("evaluate t --labels l --out o --absent-classes some", "argument --absent-classes: invalid choice"),
        ("report results --out out --speed 9", "unrecognized arguments: --speed 9"),
    ],
)
def test_wrong_usage(command, message, capsys):
    assert run(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err


# what goes well -----------------------------------------------------------------------------------------


def test_split_and_evaluate(source, tmp_path, capsys):
    assert run("split {source} --out {out} --size 64 --overlap 16", source=source, out=tmp_path / "out") == 0
    assert capsys.readouterr() == ("1 patch with 1 object of 1 image\n", "")
    assert (tmp_path / "out/annfiles/P1__64__0___0.txt").exists()

    (tmp_path / "task1").mkdir()
    (tmp_path / "task1/Task1_ship.txt").write_text("P1 0.9 0 0 9 0 9 5 0 5\n")
    command = "evaluate {task1} --labels {source}/labelTxt --out {out} --split val"
    assert run(command, task1=tmp_path / "task1", source=source, out=tmp_path / "metrics.json") == 0
    out, err = capsys.readouterr()
    assert "ship                100.00" in out and err == ""
    assert json.loads((tmp_path / "metrics.json").read_text())["AP50"] == pytest.approx(1)


# what goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["merge {task1}", "evaluate {task1} --labels {task1}"])
def test_names_are_for_ultralytics_alone(verb, tmp_path, capsys):
    (tmp_path / "Task1_ship.txt").write_text("")
    command = f"{verb} --out {{out}} --names nowhere.yaml"
    line = failure(capsys, command, task1=tmp_path, out=tmp_path / "out/metrics.json")
    assert line.endswith("--names: is only for a predictions.json; leave it out")


def test_images_that_are_not_there(tmp_path, capsys):
    command = "evaluate {at} --labels {at} --out {at}/metrics.json --images {at}/none"
    assert "none: folder not found" in failure(capsys, command, at=tmp_path)


def test_classes_without_a_file_are_named(source, tmp_path, caplog):
    (tmp_path / "task1").mkdir()
    (tmp_path / "task1/Task1_plane.txt").write_text("")
    command = "evaluate {task1} --labels {source}/labelTxt --out {out}"
    assert run(command, task1=tmp_path / "task1", source=source, out=tmp_path / "scores/metrics.json") == 0
    assert "14 of 15 classes have no Task1 file, so no detections: baseball-diamond, bridge" in caplog.text


def test_images_that_are_nearly_black(source, tmp_path, caplog):
    write_png(source / "images/P1.png", np.full((64, 64, 3), 7, np.uint8))
    assert run("split {source} --out {out}", source=source, out=tmp_path / "out") == 0
    assert "1 image nearly black: only the high byte of 16-bit samples" in caplog.text


@pytest.mark.parametrize(
    "command",
    [
        "train yoloms-xs-curent --patches p --out {out}",
        "predict yoloms-xs-curent --checkpoint c --patches p --out {out}",
        "complexity yoloms-xs-curent --out {out}",
    ],
)
def test_unknown_variant(command, tmp_path, capsys):
    line = failure(capsys, command, out=tmp_path / "out")
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
def test_unknown_dataset(command, tmp_path, capsys):
    assert failure(capsys, command, out=tmp_path / "out").endswith(
        "unknown dataset 'mnii'; did you mean 'mini'?"
    )


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
def test_missing_input(command, where, tmp_path, capsys):
    assert where in failure(capsys, command, no=tmp_path / "nothing")


def _no_images(folder: Path) -> None:
    shutil.rmtree(folder / "images")


def _garbage(folder: Path) -> None:
    (folder / "images/P1.png").write_bytes(b"no picture")


def _corrupt(folder: Path) -> None:
    content = bytearray((folder / "images/P1.png").read_bytes())
    content[-20] ^= 0xFF  # in the pixels
    (folder / "images/P1.png").write_bytes(content)


def _truncated(folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(folder / "images/P1.tif")
    content = (folder / "images/P1.tif").read_bytes()
    (folder / "images/P1.tif").write_bytes(content[:-10])
    (folder / "images/P1.png").unlink()


def _no_label(folder: Path) -> None:
    (folder / "labelTxt/P1.txt").rename(folder / "labelTxt/P2.txt")


def _no_image(folder: Path) -> None:
    (folder / "labelTxt/P2.txt").write_text(SHIP)


def _bad_line(folder: Path) -> None:
    (folder / "labelTxt/P1.txt").write_text(SHIP + "0 0 nine 0 9 5 0 5 ship 0\n")


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (_no_images, "source/images: "),
        (_garbage, "source/images/P1.png: "),
        (_corrupt, "source/images/P1.png: is not a complete image"),
        (_truncated, "source/images/P1.tif: is not a complete image"),
        (_no_label, "source/labelTxt: no label file for image P1"),
        (_no_image, "source/images: no image for label file P2"),
        (_bad_line, "source/labelTxt/P1.txt:2: "),
    ],
)
@pytest.mark.filterwarnings("default")
def test_spoilt_source(spoil, where, source, tmp_path, capfd):
    """``capfd`` also sees what libraries print themselves."""
    spoil(source)
    line = failure(capfd, "split {source} --out {out}", source=source, out=tmp_path / "out")
    assert where in line and ";" in line
    assert not (tmp_path / "out").exists()


def test_no_space_for_the_patches(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10, 10, 0))
    line = failure(capsys, "split {source} --out {out}", source=source, out=tmp_path / "out")
    assert "only 0.0 GiB are free; free some space or choose another folder with --out" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    "command",
    [
        "download mini --out {file}/out",
        "split {source} --out {file}/out",
        "complexity yoloms-xs-current --out {file}/out.json",
        "evaluate {source} --labels {source}/labelTxt --out {file}/out.json",
    ],
)
def test_where_nothing_can_be_written(command, source, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    (source / "Task1_ship.txt").write_text("")
    line = failure(capsys, command, source=source, file=tmp_path / "file")
    assert f"{tmp_path / 'file'}: cannot write here (" in line


def test_checkpoint_of_another_variant(source, tmp_path, capsys):
    from tiltbox.model import build_detector
    from tiltbox.model.checkpoint import save_checkpoint

    weights = build_detector("yoloms-xs-previous").state_dict()
    save_checkpoint(tmp_path / "previous.pth", weights, {"variant": "yoloms-xs-previous"})
    (source / "images/P1.png").rename(source / "images/P1__64__0___0.png")
    command = "predict yoloms-xs-current --checkpoint {file} --patches {source} --out {out} --gpus 0"
    line = failure(
        capsys, command, file=tmp_path / "previous.pth", source=source, out=tmp_path / "out.parquet"
    )
    assert "previous.pth: was trained as yoloms-xs-previous, not yoloms-xs-current; name that variant" in line
    assert not (tmp_path / "out.parquet").exists()


def test_a_variant_without_published_weights(source, tmp_path, capsys):
    command = "predict yoloms-l-current --checkpoint published --patches {source} --out {out}"
    line = failure(capsys, command, source=source, out=tmp_path / "out.parquet")
    assert "variants.yoloms-l-current.checkpoint: no weights are published; give the file of your own" in line


def test_debug_gives_the_traceback(tmp_path):
    command = [sys.executable, "-m", "tiltbox", "report", str(tmp_path / "nothing"), "--out", str(tmp_path)]
    plain, debug = (
        subprocess.run(words, capture_output=True, text=True, check=False)
        for words in (command, [*command, "--debug"])
    )
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert plain.stderr.count("\n") == 1 and "Traceback" not in plain.stderr
    assert "Traceback (most recent call last)" in debug.stderr and "DataError" in debug.stderr


def test_the_unforeseen_is_one_line_too(monkeypatch, tmp_path, capsys):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device", "patch.png")

    monkeypatch.setattr("tiltbox.stages.split.split", fail)
    line = failure(capsys, "split src --out {out}", out=tmp_path)
    assert "OSError: [Errno 28] No space left on device: 'patch.png'" in line
    with pytest.raises(OSError, match="No space left"):
        run("split src --out {out} --debug", out=tmp_path)


def test_interrupted(monkeypatch, tmp_path, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tiltbox.stages.split.split", interrupt)
    assert run("split src --out {out}", out=tmp_path) == 130
    assert capsys.readouterr().err == "tiltbox split: interrupted\n"


# the installed command ----------------------------------------------------------------------------------


def test_version():
    done = subprocess.run([TILTBOX, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tiltbox {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys, tiltbox.__main__\n"
        "try:\n    tiltbox.__main__.main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'cv2', 'numpy', 'pyarrow', 'numba', 'mlflow', 'mmengine', 'pydantic'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    environment = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.endswith("heavy: []\n")


def test_a_progress_bar_is_for_terminals(source, tmp_path):
    command = [TILTBOX, "split", source, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1 patch with 1 object of 1 image\n", "")
