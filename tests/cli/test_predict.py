"""Which weights predict refuses."""

from __future__ import annotations


def test_checkpoint_of_another_variant(source, tmp_path, failure):
    from tiltbox.model import build_detector
    from tiltbox.model.checkpoint import save_checkpoint

    weights = build_detector("yoloms-xs-previous").state_dict()
    save_checkpoint(tmp_path / "previous.pth", weights, {"variant": "yoloms-xs-previous"})
    (source / "images/P1.png").rename(source / "images/P1__64__0___0.png")
    command = "predict yoloms-xs-current --checkpoint {file} --patches {source} --out {out} --gpus 0"
    line = failure(command, file=tmp_path / "previous.pth", source=source, out=tmp_path / "out.parquet")
    assert "previous.pth: was trained as yoloms-xs-previous, not yoloms-xs-current; name that variant" in line
    assert not (tmp_path / "out.parquet").exists()


def test_a_variant_without_published_weights(source, tmp_path, failure):
    command = "predict yoloms-l-current --checkpoint published --patches {source} --out {out}"
    line = failure(command, source=source, out=tmp_path / "out.parquet")
    assert "variants.yoloms-l-current.checkpoint: no weights are published; give the file of your own" in line
