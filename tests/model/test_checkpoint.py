"""Checkpoints from different sources, and those that cannot be used."""

from __future__ import annotations

import collections
import json
import pickle
import re
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tiltbox.errors import CheckpointError, OutputError
from tiltbox.files.transfer import Patience
from tiltbox.model import build_detector
from tiltbox.model.checkpoint import load_exactly, local_copy, read_checkpoint, save_checkpoint, start_from
from tiltbox.model.rtmdet.row import RTMDet
from tiltbox.model.yolov8.row import YOLOv8

XS = "yoloms-xs-current"


@pytest.fixture(scope="module")
def coco_weights():
    """Weights laid out as those trained on COCO: 80 classes, upright boxes."""
    weights = build_detector(XS, num_classes=80).state_dict()
    return {key: value for key, value in weights.items() if "rtm_ang" not in key}


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first.keys() & second.keys())


def test_round_trip(tmp_path):
    model, other = build_detector(XS), build_detector(XS)
    save_checkpoint(tmp_path / "a.pth", model.state_dict(), {"variant": XS})
    load_exactly(other, tmp_path / "a.pth", XS)
    assert same(model.state_dict(), other.state_dict())
    assert read_checkpoint(tmp_path / "a.pth")[1] == {"variant": XS}


def test_80_classes_start_a_15_class_training(tmp_path, coco_weights):
    torch.save({"state_dict": coco_weights, "meta": {}}, tmp_path / "coco.pth")
    model = build_detector(XS)
    report = start_from(model, tmp_path / "coco.pth")
    assert [key for key in report.left_out if "rtm_cls" not in key] == []
    assert len(report.left_out) == 6 and len(report.random) == 6
    assert "left out, since they do not fit: bbox_head.rtm_cls.0.bias" in str(report)
    assert "left at random: bbox_head.rtm_ang.0.bias" in str(report)
    assert torch.equal(model.state_dict()["backbone.query"], coco_weights["backbone.query"])


def test_a_classifier_starts_the_backbone(tmp_path):
    """Public RTMDet trainings start from weights of an image classifier: of its backbone alone."""
    classifier = {k: v for k, v in build_detector("rtmdet-r-tiny").state_dict().items() if "backbone." in k}
    torch.save({"state_dict": classifier | {"head.fc.weight": torch.ones(1000, 384)}}, tmp_path / "in1k.pth")
    model = build_detector("rtmdet-r-tiny")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = start_from(model, tmp_path / "in1k.pth", RTMDet.STARTED)
    after = model.state_dict()
    assert report.loaded == len(classifier) and same(after, classifier)
    assert all(torch.equal(after[key], before[key]) for key in report.random)
    assert "left out, since they do not fit: head.fc.weight" in str(report)
    assert re.search(r"left at random: \d+ entries of bbox_head, \d+ entries of neck$", str(report))
    with pytest.raises(CheckpointError, match="is of another model"):
        start_from(build_detector(XS), tmp_path / "in1k.pth")


@pytest.mark.parametrize("missing", ["backbone", "neck"])
def test_upright_yolov8_starts_backbone_and_neck(tmp_path, missing):
    """Its head is another one; backbone and neck must be there in full."""
    upstream = json.loads((Path(__file__).parent / "yolov8.json").read_text())["yolov8-n-ms"]["state_dict"]
    weights = {key: torch.full(shape, 0.5) for key, shape in upstream.items()}
    head = {"bbox_head.head_module.cls_preds.0.2.weight": torch.ones(80, 80, 1, 1)}
    torch.save({"state_dict": weights | head}, tmp_path / "coco.pth")
    model = build_detector("yolov8-n-ms")
    report = start_from(model, tmp_path / "coco.pth", YOLOv8.STARTED)
    assert report.loaded == len(weights)
    torch.save({"state_dict": {k: v for k, v in weights.items() if missing not in k}}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=f"is of another model.*such as {missing}"):
        start_from(model, tmp_path / "part.pth", YOLOv8.STARTED)


def test_mmyolo_names_are_understood(tmp_path, coco_weights):
    renamed = {
        key.replace("bbox_head.", "bbox_head.head_module."): value for key, value in coco_weights.items()
    }
    torch.save({"state_dict": renamed}, tmp_path / "mmyolo.pth")
    weights, _ = read_checkpoint(tmp_path / "mmyolo.pth")
    assert weights.keys() == coco_weights.keys() and same(weights, coco_weights)


def test_objects_of_other_libraries_are_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    state = {"w": torch.ones(2)}
    content = {"state_dict": state, "meta": {}, "message_hub": Trap(), "history": np.float64(3)}
    torch.save(content, tmp_path / "trap.pth")
    weights, _ = read_checkpoint(tmp_path / "trap.pth")
    assert torch.equal(weights["w"], state["w"])
    assert not (tmp_path / "touched").exists()


class Harmless(collections.defaultdict):
    """A container of another library, such as a training history."""


def test_containers_of_other_libraries_are_passed_over(tmp_path):
    history = Harmless(list, a=[1])
    torch.save({"state_dict": {"w": torch.ones(2)}, "meta": {"log": history}}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth")[0]["w"].tolist() == [1, 1]


def test_a_name_with_dots_does_not_reach_other_code(tmp_path):
    """``eval``, reached through the globals of a function that may be called."""
    save_checkpoint(tmp_path / "plain.pth", {"w": torch.ones(2)}, {})
    touch = f"open({str(tmp_path / 'touched')!r}, 'w')"
    attack = (
        pickle.PROTO
        + b"\x04"
        + b"".join(
            [
                *(_text("torch._utils"), _text("_rebuild_tensor_v2.__builtins__.__getitem__")),
                *(pickle.STACK_GLOBAL, _text("eval"), pickle.TUPLE1, pickle.REDUCE),
                *(_text(touch), pickle.TUPLE1, pickle.REDUCE, pickle.STOP),
            ]
        )
    )
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bad.pth", "w") as bad:
        for name in plain.namelist():
            bad.writestr(name, attack if name.endswith("data.pkl") else plain.read(name))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "touched").exists()


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text)) + text.encode()


def test_other_classes(tmp_path):
    model = build_detector(XS, num_classes=2)
    save_checkpoint(tmp_path / "a.pth", model.state_dict(), {"classes": ["car", "ship"]})
    load_exactly(model, tmp_path / "a.pth", XS, ("car", "ship"))
    with pytest.raises(CheckpointError, match=r"trained on other classes \(car, ship\); give the dataset"):
        load_exactly(model, tmp_path / "a.pth", XS, ("ship", "car"))


def test_another_variant(tmp_path):
    save_checkpoint(tmp_path / "s.pth", build_detector("yoloms-s-current").state_dict(), {})
    with pytest.raises(CheckpointError, match=r"s\.pth: does not fit yoloms-xs-current .*; name the variant"):
        load_exactly(build_detector(XS), tmp_path / "s.pth", XS)
    with pytest.raises(CheckpointError, match="is of another model"):
        start_from(build_detector(XS), tmp_path / "s.pth")


def test_a_checkpoint_that_names_another_variant(tmp_path):
    save_checkpoint(tmp_path / "s.pth", {"w": torch.ones(1)}, {"variant": "yoloms-s-current"})
    with pytest.raises(CheckpointError, match="was trained as yoloms-s-current, not yoloms-xs-current"):
        load_exactly(build_detector(XS), tmp_path / "s.pth", XS)


def test_another_number_of_classes(tmp_path):
    save_checkpoint(tmp_path / "three.pth", build_detector(XS, num_classes=3).state_dict(), {})
    with pytest.raises(CheckpointError, match="has 3 classes, not 15"):
        load_exactly(build_detector(XS), tmp_path / "three.pth", XS)


@pytest.mark.parametrize(
    "content", [b"", b"<!doctype html><html>quota exceeded</html>", b"PK\x03\x04 broken"]
)
def test_a_file_that_is_not_a_checkpoint(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.pth: is not a readable checkpoint"):
        read_checkpoint(tmp_path / "bad.pth")


def test_a_truncated_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "whole.pth", {"w": torch.ones(5000)}, {})
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:9000])
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        read_checkpoint(tmp_path / "half.pth")


def test_a_missing_file_and_one_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match="checkpoint not found"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save({"meta": {}}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="contains no weights"):
        read_checkpoint(tmp_path / "empty.pth")


class Weights:
    """An object of another library in the place of weights."""


@pytest.mark.parametrize("weights", [[torch.ones(2)], {1: torch.ones(2)}, Weights(), torch.ones(2)])
def test_weights_without_names(tmp_path, weights):
    torch.save({"state_dict": weights}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="contains no weights"):
        read_checkpoint(tmp_path / "odd.pth")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of downloads, on a machine that uses no proxy."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "cache"


def named_place(error: CheckpointError) -> Path:
    """Where the error says to put the file."""
    return Path(re.search(r"; download it on another machine and put it at (\S+\.pth)$", str(error))[1])


@pytest.mark.usefixtures("cache")
def test_an_address(tmp_path, serve):
    for value, name in enumerate(("mini/variant", "mine/variant")):
        (tmp_path / name).mkdir(parents=True)
        save_checkpoint(tmp_path / name / "epoch_36.pth", {"w": torch.full((1,), value)}, {})
    base = serve(tmp_path)
    for value, name in enumerate(("mini/variant", "mine/variant")):  # addresses with the same end
        assert read_checkpoint(f"{base}/{name}/epoch_36.pth")[0]["w"] == value
    address = f"{base}/variant/none.pth"
    with pytest.raises(
        CheckpointError, match=rf"^{address}: the server answers 404 .*; download it on another"
    ):
        read_checkpoint(address)


def test_a_closed_port(cache, closed):
    address = f"{closed}/epoch_36.pth"
    with pytest.raises(CheckpointError, match=rf"^{address}: cannot be reached \(Connection refused\);"):
        local_copy(address)
    assert list(cache.rglob("*.pth*")) == []


@pytest.mark.usefixtures("cache")
def test_an_unknown_host():
    """A name that never exists (RFC 2606); the system's message depends on whether it has DNS."""
    reason = r"cannot be reached \(the host name cannot be resolved: [^()]+\)"
    with pytest.raises(CheckpointError, match=rf"^http://weights\.invalid/a\.pth: {reason};"):
        local_copy("http://weights.invalid/a.pth", Patience(attempts=1))


@pytest.mark.usefixtures("cache")
def test_a_server_that_never_answers(silent):
    begin = time.monotonic()
    with pytest.raises(CheckpointError, match=r"cannot be reached \(no answer within 0\.1 s\)"):
        local_copy(f"{silent}/a.pth", Patience(attempts=2, answer=0.1))
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<!doctype html><p>Sign in</p>", "is a web page, not the file"),
        (b"version https://git-lfs.github.com/spec/v1", "is damaged or another kind of file"),
        (b"PK\x03\x04 the rest is missing", "is damaged or another kind of file"),
    ],
)
def test_a_download_that_is_not_a_checkpoint_is_not_kept(tmp_path, cache, serve, content, problem):
    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=problem):
        local_copy(f"{serve(tmp_path / 'web')}/a.pth")
    assert [path for path in cache.rglob("*a.pth*") if path.is_file()] == []


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_of_every_version_of_torch_are_kept(tmp_path, cache, serve, zipped):
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert local_copy(f"{serve(tmp_path)}/a.pth").is_relative_to(cache)


def test_a_file_that_was_put_into_the_cache_needs_no_network(cache, closed):
    with pytest.raises(CheckpointError) as error:
        local_copy(f"{closed}/a.pth")
    place = named_place(error.value)
    assert place.is_relative_to(cache)
    save_checkpoint(place, {"w": torch.ones(1)}, {})
    assert local_copy(f"{closed}/a.pth") == place
    assert read_checkpoint(f"{closed}/a.pth")[0]["w"] == 1


@pytest.mark.parametrize(
    ("content", "reason"), [(b"torn", ".+"), (b"<html>Sign in</html>", "it is a web page")]
)
@pytest.mark.usefixtures("cache")
def test_a_damaged_file_in_the_cache(closed, content, reason):
    address = f"{closed}/a.pth"
    with pytest.raises(CheckpointError) as error:
        local_copy(address)
    place = named_place(error.value)
    place.write_bytes(content)
    remedy = f"delete it, so that {address} is downloaded again"
    with pytest.raises(
        CheckpointError, match=rf"^{place}: is not a readable checkpoint \({reason}\); {remedy}$"
    ):
        read_checkpoint(address)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, closed):
    (tmp_path / "cache").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    with pytest.raises(OutputError, match="; set TORCH_HOME to a folder with space"):
        local_copy(f"{closed}/a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    torch.save({"state_dict": {"a.weight": torch.tensor([1.0, value])}}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"a\.pth: contains weights that are not finite \(such as a\.weight"
    ):
        read_checkpoint(tmp_path / "a.pth")
