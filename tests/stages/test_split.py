from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tiltbox import processes
from tiltbox.dota.images.pixels import write_png
from tiltbox.dota.labels import read_labels
from tiltbox.dota.patches import parse_patch_name
from tiltbox.errors import DataError, OutputError, SettingsError
from tiltbox.files.atomic import MARK
from tiltbox.stages import split as stage
from tiltbox.stages.split import split

SAMPLE = Path(__file__).resolve().parents[2] / "../shared/dota-sample"
PADDING = (104, 116, 124)  # BGR
SMALL = {"size": 64, "overlap": 16, "workers": 1}


def picture(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def add(folder: Path, name: str, size: tuple[int, int] = (100, 70), labels: str | None = "") -> Path:
    """Add an image to the source ``folder``, and a label file unless ``labels`` is None."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write_png(folder / "images" / f"{name}.png", picture(*size))
    if labels is not None:
        (folder / "labelTxt").mkdir(exist_ok=True)
        (folder / "labelTxt" / f"{name}.txt").write_text(labels)
    return folder


def box(x0: float, y0: float, x1: float, y1: float, name: str = "ship", difficult: int = 0) -> str:
    return f"{x0} {y0} {x1} {y0} {x1} {y1} {x0} {y1} {name} {difficult}\n"


@pytest.fixture
def source(tmp_path) -> Path:
    """One image of 100 × 70 pixels, cut at x 0 and 36 and y 0 and 6, with four objects."""
    objects = (
        box(1, 10, 5, 20, "ship", 1)  # in the two left windows
        + box(40, 10, 60, 20.5, "plane")  # in all four
        + box(50, 10, 70, 20, "plane")  # 0.7 of it in the left ones, all of it in the right ones
        + box(0, 0, 100, 70, "harbor")  # in none
    )
    return add(tmp_path / "train", "P1", labels=f"imagesource:GoogleEarth\ngsd:0.1\n{objects}")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refuses(error: type[Exception], message: str, source: Path, out: Path, **options) -> None:
    """Check that splitting fails with ``message`` and leaves no trace."""
    with pytest.raises(error, match=message):
        split([source], out, **(SMALL | options))
    assert not out.exists()
    assert not out.parent.exists() or not [p for p in out.parent.iterdir() if p.name.startswith(".out")]


def test_no_images(tmp_path):
    (tmp_path / "train/images").mkdir(parents=True)
    refuses(DataError, "no images found", tmp_path / "train", tmp_path / "out")
    with pytest.raises(DataError, match="no images found"):
        split([], tmp_path / "out")


def test_image_without_objects(tmp_path):
    manifest = split([add(tmp_path / "train", "P1")], tmp_path / "out", **SMALL)
    assert (manifest["patches"], manifest["empty_patches"], manifest["objects"]) == (4, 4, 0)
    assert [p.read_bytes() for p in (tmp_path / "out/annfiles").iterdir()] == [b""] * 4


def test_names_pixels_and_padding(tmp_path):
    split([add(tmp_path / "train", "P1", (100, 40))], tmp_path / "out", **SMALL)
    patches = sorted((tmp_path / "out/images").iterdir())
    assert [p.name for p in patches] == ["P1__64__0___0.png", "P1__64__36___0.png"]
    whole = picture(100, 40)
    for path, x in zip(patches, (0, 36), strict=True):
        patch = cv2.imread(str(path))
        assert patch.shape == (64, 64, 3)
        assert np.array_equal(patch[:40], whole[:, x : x + 64])
        assert (patch[40:] == PADDING).all()


def test_image_smaller_than_the_window(tmp_path):
    split([add(tmp_path / "train", "P1", (10, 70))], tmp_path / "out", **SMALL)
    patch = cv2.imread(str(tmp_path / "out/images/P1__64__0___6.png"))
    assert np.array_equal(patch[:, :10], picture(10, 70)[6:])
    assert (patch[:, 10:] == PADDING).all()


def test_objects_counted_by_hand(source, tmp_path):
    split([source], tmp_path / "out", **SMALL)
    left, right = (read_labels(tmp_path / f"out/annfiles/P1__64__{x}___6.txt") for x in (0, 36))
    assert left.classes == ("ship", "plane", "plane")
    assert left.difficult.tolist() == [1, 0, 2]
    assert left.qboxes[1].tolist() == [40, 4, 60, 4, 60, 14.5, 40, 14.5]
    assert right.classes == ("plane", "plane")
    assert right.difficult.tolist() == [0, 0]
    assert right.qboxes[1].tolist() == [14, 4, 34, 4, 34, 14, 14, 14]
    assert left.header == ()


def test_manifest(source, tmp_path):
    add(source, "P2", (64, 64), box(3, 3, 3, 9))  # no area, hence in no window
    manifest = split([source], tmp_path / "out", **SMALL)
    assert manifest == {
        "sources": ["train"],
        "size": 64,
        "overlap": 16,
        "rates": [1.0],
        "iof": 0.7,
        "labelled": True,
        "images": 2,
        "nearly_black_images": 0,
        "patches": 5,
        "empty_patches": 1,
        "objects": 5,
        "objects_without_area": 1,
        "objects_outside_images": 0,
        "objects_cut_by_every_patch": 1,
        "objects_in_patches": 10,
        "cut_objects": 2,
        "classes": {"harbor": 0, "plane": 8, "ship": 2},
        "contents": manifest["contents"],
    }
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest


def left_out(folder: Path) -> list[tuple[str, int, str]]:
    """Image, number and reason of each object that is listed."""
    with (folder / "left_out.csv").open(newline="") as file:
        return [(row["image"], int(row["object"]), row["reason"]) for row in csv.DictReader(file)]


def test_objects_on_no_patch_are_listed_with_the_reason(tmp_path):
    add(tmp_path / "train", "P1", (100, 70), box(0, 0, 95, 9) + box(1, 1, 9, 9) + box(90, 20, 130, 40))
    small = box(30, 10, 40, 20) + box(42, 10, 52, 20) + box(36, 10, 46, 20) + box(3, 3, 3, 9)
    add(tmp_path / "train", "P2", (40, 64), small)  # its patch has padding from x = 40
    manifest = split([tmp_path / "train"], tmp_path / "out", **SMALL)
    assert left_out(tmp_path / "out") == [
        ("P1", 1, "cut by every patch"),
        ("P1", 3, "outside the image"),
        ("P2", 2, "outside the image"),  # completely; 0.4 of the third is inside, so its patch keeps it
        ("P2", 4, "without area"),
    ]
    counted = ("cut_by_every_patch", "outside_images", "without_area")
    assert [manifest[f"objects_{key}"] for key in counted] == [1, 2, 1]
    assert len(read_labels(tmp_path / "out/annfiles/P2__64__0___0.txt")) == 2


def test_nothing_is_listed_where_all_objects_are_on_patches(tmp_path):
    split([add(tmp_path / "train", "P1", labels=box(1, 1, 9, 9))], tmp_path / "out", **SMALL)
    assert not (tmp_path / "out/left_out.csv").exists()


@pytest.mark.parametrize("seed", range(8))
def test_every_object_is_on_a_patch_or_listed(tmp_path, seed):
    """Each object has its own class, by which it is found again."""
    draw = np.random.default_rng(seed)
    names = iter(f"c{number}" for number in range(1000))
    expected = {}
    for image in ("P1", "P2", "P3"):
        width, height = draw.integers(20, 160, 2).tolist()
        rows = []
        for number in range(1, draw.integers(0, 12) + 1):
            x, y = draw.uniform(-30, 170, 2)
            w, h = draw.choice([0, 5, 30, 90], 2)
            name = next(names)
            expected[name] = (image, number)
            rows.append(box(x, y, x + w, y + h, name))
        add(tmp_path / "train", image, (width, height), "".join(rows))
    cut = {"rates": (1.0, 0.5) if seed % 2 else (1.0,), "iof": 0.7 if seed % 3 else 1.0}
    manifest = split([tmp_path / "train"], tmp_path / "out", **SMALL, **cut)
    listed = left_out(tmp_path / "out")
    annfiles = (tmp_path / "out/annfiles").iterdir()
    on_patches = {name for path in annfiles for name in read_labels(path).classes}
    found = [*(expected[name] for name in on_patches), *(row[:2] for row in listed)]
    assert sorted(found) == sorted(expected.values())
    assert manifest["objects"] == len(expected) == len(on_patches) + len(listed)


def test_rates_that_make_the_same_windows(source, tmp_path):
    refuses(
        SettingsError,
        "rates 1.0 and 0.9999 both make windows of 64 pixels; remove one",
        source,
        tmp_path / "out",
        rates=(1.0, 0.9999),
    )


@pytest.mark.parametrize(("image", "label"), [("café", "cafe\u0301"), ("cafe\u0301", "café")])
def test_two_ways_to_write_the_same_letters(tmp_path, image, label):
    """Some systems and archives turn one into the other; patches have the usual form."""
    add(tmp_path / "train", "P1", labels=box(1, 1, 9, 9))
    (tmp_path / "train/images/P1.png").rename(tmp_path / f"train/images/{image}.png")
    (tmp_path / "train/labelTxt/P1.txt").rename(tmp_path / f"train/labelTxt/{label}.txt")
    split([tmp_path / "train"], tmp_path / "out", **SMALL)
    names = {path.stem for path in (tmp_path / "out/annfiles").iterdir()}
    assert names == {f"café__64__{x}___{y}" for x in (0, 36) for y in (0, 6)}
    add(tmp_path / "train", "cafe\u0301" if image == "café" else "café")
    shutil.rmtree(tmp_path / "out")
    refuses(DataError, "contains more than one image named", tmp_path / "train", tmp_path / "out")


def test_contents_change_with_a_pixel_or_a_label_alone(source, tmp_path):
    """All counts stay the same, but results made from the patches are out of date."""

    def contents(**changes) -> str:
        return split([source], tmp_path / "out", **SMALL | changes)["contents"]

    before = contents()
    assert contents() == contents(workers=2) == before
    label = next((source / "labelTxt").iterdir())
    text = label.read_text()
    label.write_text(text.replace("40 10 ", "40 11 ", 1))
    assert label.read_text() != text and contents() != before
    label.write_text(text)
    image = cv2.imread(str(source / "images/P1.png"))
    image[3, 5, 1] ^= 1
    write_png(source / "images/P1.png", image)
    assert contents() != before


def test_images_that_are_nearly_black_are_counted(source, tmp_path):
    """Images with 11 of 16 bits are like this: their high byte contains almost nothing."""
    cv2.imwrite(str(source / "images/P1.png"), np.full((70, 100, 3), 2047, np.uint16))
    assert split([source], tmp_path / "out", **SMALL)["nearly_black_images"] == 1
    cv2.imwrite(str(source / "images/P1.png"), np.full((70, 100, 3), 4096, np.uint16))
    assert split([source], tmp_path / "out", **SMALL)["nearly_black_images"] == 0


def test_classes_in_the_given_order(source, tmp_path):
    manifest = split([source], tmp_path / "out", **SMALL, classes=("ship", "plane", "bridge", "harbor"))
    assert list(manifest["classes"].items()) == [("ship", 2), ("plane", 8), ("bridge", 0), ("harbor", 0)]


def test_without_labels(tmp_path):
    manifest = split([add(tmp_path / "test", "P1", labels=None)], tmp_path / "out", **SMALL)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        MARK,
        "images",
        "manifest.json",
    ]
    assert (manifest["labelled"], manifest["patches"], manifest["objects"]) == (False, 4, 0)


def test_several_sources(tmp_path):
    sources = [add(tmp_path / "train", "P1"), add(tmp_path / "val", "P2")]
    manifest = split(sources, tmp_path / "out", **SMALL)
    assert (manifest["sources"], manifest["images"]) == (["train", "val"], 2)
    images = {parse_patch_name(path.stem).image for path in (tmp_path / "out/images").iterdir()}
    assert images == {"P1", "P2"}


def test_several_scales_map_back_to_the_image(tmp_path):
    source = add(tmp_path / "train", "P__1", (200, 150), box(100, 80, 110, 90.5))
    split([source], tmp_path / "out", size=64, overlap=16, rates=(0.5, 1.0, 1.5), workers=1)
    names = [parse_patch_name(path.stem) for path in (tmp_path / "out/images").iterdir()]
    assert {(name.image, name.scale) for name in names} == {("P__1", 128), ("P__1", 64), ("P__1", 42)}
    found = 0
    for path in (tmp_path / "out/annfiles").iterdir():
        name, labels = parse_patch_name(path.stem), read_labels(path)
        patch = cv2.imread(str(tmp_path / f"out/images/{path.stem}.png"))
        assert patch.shape == (name.scale, name.scale, 3)
        for qbox in labels.qboxes:
            original = (qbox.reshape(4, 2) + np.array([name.x, name.y])) / name.rate
            assert original.tolist() == [[100, 80], [110, 80], [110, 90.5], [100, 90.5]]
            found += 1
    assert found >= 3


def test_processes_give_the_same_as_one(tmp_path):
    for number in range(3):
        source = add(tmp_path / "train", f"P{number}", (100 + number, 70), box(10, 10, 30, 30))
    split([source], tmp_path / "one", **SMALL)
    split([source], tmp_path / "two", **(SMALL | {"workers": 2}))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_error_in_a_process(tmp_path):
    for number in range(3):
        source = add(tmp_path / "train", f"P{number}")
    image = source / "images/P1.png"
    image.write_bytes(image.read_bytes()[:5000])
    refuses(DataError, r"P1\.png: is not a complete image", source, tmp_path / "out", workers=2)


def test_earlier_split_is_replaced(source, tmp_path):
    split([source], tmp_path / "out", **SMALL)
    expected = tree(tmp_path / "out")
    split([source], tmp_path / "out", size=32, overlap=0, workers=1)
    assert tree(tmp_path / "out") != expected
    (tmp_path / "out/manifest.json").unlink()  # as Snakemake does before it runs the stage again
    split([source], tmp_path / "out", **SMALL)
    assert tree(tmp_path / "out") == expected


def test_earlier_split_survives_an_error(source, tmp_path):
    split([source], tmp_path / "out", **SMALL)
    expected = tree(tmp_path / "out")
    image = source / "images/P1.png"
    image.write_bytes(image.read_bytes()[:5000])
    with pytest.raises(DataError):
        split([source], tmp_path / "out", **SMALL)
    assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("entry", ["images/P9.png", "notes.txt", "manifest.json", "annfiles/P1.txt"])
def test_other_folders_are_not_replaced(source, tmp_path, entry):
    path = tmp_path / "out" / entry
    (tmp_path / "out/images").mkdir(parents=True)
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"name": "my dataset"}')
    with pytest.raises(OutputError, match=r"does not say that 'tiltbox split' wrote it"):
        split([source], tmp_path / "out", **SMALL)
    assert path.exists()


def test_out_may_be_there_and_empty(source, tmp_path):
    (tmp_path / "out").mkdir()
    split([source], tmp_path / "out", **SMALL)
    assert (tmp_path / "out/manifest.json").exists()


@pytest.mark.parametrize("out", ["train", ".", "train/images"])
def test_out_must_not_hold_or_be_a_source(source, tmp_path, out):
    before = tree(tmp_path)
    with pytest.raises(OutputError):
        split([source], tmp_path / out, **SMALL)
    assert tree(tmp_path) == before


def test_out_must_not_be_a_source_of_patches(tmp_path):
    source = add(tmp_path / "test", "P1__64__0___0", labels=None)
    with pytest.raises(OutputError, match="which it is made from"):
        split([source], source, **SMALL)


def test_out_cannot_be_written(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write here"):
        split([source], tmp_path / "file/out", **SMALL)


def test_space_is_checked_first(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    needed = sum(path.stat().st_size for path in (source / "images").iterdir()) // 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    refuses(OutputError, "are free", source, tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    split([source], tmp_path / "out", **SMALL)


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (errno.ENOSPC, "free some space or choose another folder"),
        (errno.EDQUOT, "free some space or choose another folder"),
        (errno.EIO, "choose another folder"),
        (errno.EMFILE, "choose another folder"),
    ],
)
def test_disk_that_fails(source, tmp_path, monkeypatch, failure, remedy):
    def fail(*_):
        raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(stage, "write_png", fail)
    message = f"{tmp_path}/out: cannot write here ({os.strerror(failure)}); {remedy} with --out"
    refuses(OutputError, re.escape(message), source, tmp_path / "out")


def test_what_a_killed_split_left_takes_no_space_from_the_next(source, tmp_path, monkeypatch):
    left = tmp_path / ".out.tiltbox-abcdefgh"
    left.mkdir()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0 if left.exists() else 10**6))
    split([source], tmp_path / "out", **SMALL)


def test_what_is_wrong_with_a_source_is_said_before_anything_is_written(source, tmp_path, monkeypatch):
    add(source, "P2", labels="gsd:1\n" + box(1, 1, "x", 5))
    monkeypatch.setattr(stage, "write_png", lambda *_: pytest.fail("wrote a patch"))
    refuses(DataError, r"P2\.txt:2: .*'x'", source, tmp_path / "out")


def test_unknown_class(source, tmp_path):
    refuses(
        DataError, r"P1\.txt:6: unknown class 'harbor'", source, tmp_path / "out", classes=("ship", "plane")
    )


# processes ----------------------------------------------------------------------------------------------


@pytest.fixture
def cutting(tmp_path) -> subprocess.Popen:
    """A process that is cutting many small patches, with two workers."""
    for number in range(4):
        source = add(tmp_path / "train", f"P{number}", (600, 600))
    options = ["--size", "32", "--overlap", "24", "--workers", "2"]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits that it is ignored,
    try:  # as it is if a shell runs the tests in the background
        process = subprocess.Popen(
            [*command(source, tmp_path / "out"), *options],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    while not list(tmp_path.glob(".out.*/new/images/*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    with process:
        yield process


def command(source: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "tiltbox", "split", str(source), "--out", str(out)]


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_ended_while_it_cuts(cutting, tmp_path, by):
    """No process continues, and the next split leaves only its output."""
    children = children_of(cutting.pid)
    assert len(children) >= 2
    os.killpg(cutting.pid, by) if by == signal.SIGINT else cutting.send_signal(by)  # Ctrl-C reaches all
    _, said = cutting.communicate(timeout=60)
    assert cutting.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[by], said
    if by == signal.SIGINT:
        assert said.endswith("tiltbox split: interrupted\n")
    until = time.monotonic() + 20
    while alive(children):
        assert time.monotonic() < until, f"{alive(children)} of {children} go on"
        time.sleep(0.05)
    assert by == signal.SIGKILL or names(tmp_path) == ["train"]
    again = [*command(tmp_path / "train", tmp_path / "out"), "--size", "600", "--overlap", "0"]
    done = subprocess.run(again, check=False)
    assert (done.returncode, names(tmp_path)) == (0, ["out", "out.provenance.json", "train"])
    assert names(tmp_path / "out/images") == [f"P{number}__600__0___0.png" for number in range(4)]


def test_a_worker_that_is_killed(cutting, tmp_path):
    for child in children_of(cutting.pid):
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(child, signal.SIGKILL)
            break
    _, said = cutting.communicate(timeout=60)
    assert cutting.returncode == 1
    assert said.splitlines()[-1] == (
        "tiltbox split: workers: a process was killed, probably because memory ran out; use fewer --workers"
    )
    assert names(tmp_path) == ["train"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def children_of(process: int) -> set[int]:
    return {
        int(child)
        for path in Path(f"/proc/{process}/task").glob("*/children")
        for child in path.read_text().split()
    }


def alive(numbers: set[int]) -> set[int]:
    """The processes that still run, without zombies."""
    states = {}
    for process in numbers:
        with contextlib.suppress(OSError):
            states[process] = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return {process for process, state in states.items() if state != "Z"}


def test_unwanted_patches_are_not_cut(source, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_unwanted", SimpleNamespace(value=1))
    monkeypatch.setattr(stage, "write_png", lambda *_: pytest.fail("wrote a patch"))
    refuses(processes.Unwanted, "^$", source, tmp_path / "out")


def test_a_script_that_does_not_guard_its_start(tmp_path):
    for number in range(2):
        source = add(tmp_path / "train", f"P{number}")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tiltbox.stages.split import split\n"
        "split([Path(sys.argv[1])], Path(sys.argv[2]), size=64, overlap=16, workers=2)\n"
    )
    words = [sys.executable, script, source, tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "memory runs out" not in done.stderr
    assert "workers: their processes could not start; " in done.stderr.splitlines()[-1]
    assert names(tmp_path) == ["script.py", "train"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 31}, "size: size 31 makes windows of 31 pixels; give one that makes 32"),
        ({"rates": (1.0, 4.0)}, "rates: rate 4.0 makes windows of 16 pixels"),
        ({"workers": 0}, "workers"),
    ],
)
def test_impossible_settings(source, tmp_path, options, message):
    refuses(SettingsError, message, source, tmp_path / "out", **options)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the DOTA sample is not beside the repository")
def test_real_images(tmp_path):
    """The numbers are those of mmrotate's own splitter on the same images."""
    manifest = split([SAMPLE / "train", SAMPLE / "val"], tmp_path / "out")
    assert (manifest["patches"], manifest["objects"], manifest["objects_in_patches"]) == (22, 694, 2239)
    assert manifest["cut_objects"] == 49
