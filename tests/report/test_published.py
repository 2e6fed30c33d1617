"""The published numbers: copied without mistakes, and guarded against them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tiltbox.configs import CONFIGS
from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.errors import SettingsError
from tiltbox.model.variants import load_variants
from tiltbox.settings.published import load_published

REFERENCE = Path(__file__).resolve().parents[2] / "../shared/reference/published.md"

# AP50 as the server printed it, from which both the table and the classes must follow.
SERVER_AP50 = {
    "yoloms-xs-previous": 0.758776,
    "yoloms-s-previous": 0.765461,
    "yoloms-xs-current": 0.766537,
    "yoloms-s-current": 0.772239,
}


def test_one_row_for_every_variant(published):
    """Of the families whose authors scored them on DOTA."""
    rows = load_variants().variants.items()
    assert list(published.variants) == [name for name, row in rows if row.family != "yolov8"]


@pytest.mark.parametrize(("name", "ap50"), SERVER_AP50.items())
def test_the_classes_average_to_the_printed_ap50(published, name, ap50):
    classes = published.classes[name]
    assert tuple(classes) == DOTA_V1_CLASSES
    assert sum(classes.values()) / 15 == pytest.approx(ap50, abs=1e-6)
    assert abs(published.variants[name].AP50 - 100 * ap50) < 0.006


def test_the_large_models_were_never_scored(published):
    for name in ("yoloms-l-previous", "yoloms-l-current"):
        row = published.variants[name]
        assert (row.mAP, row.AP50, row.AP75) == (None, None, None) and name not in published.classes


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference numbers lie beside this checkout only")
def test_the_table_is_the_reference_word_by_word(published):
    lines = [re.split(r"\s*\|\s*", line.strip("| ")) for line in REFERENCE.read_text().splitlines()]
    yoloms = {cells[0]: cells[1:] for cells in lines if cells[0].startswith("yoloms-")}
    rtmdet = {cells[0]: cells[3:8] for cells in lines if cells[0].startswith("rtmdet-") and cells[2] == "RR"}
    rows = yoloms | rtmdet
    for name, row in published.variants.items():
        ours = (row.mAP, row.AP50, row.AP75, row.params, row.flops)
        assert ["–" if value is None else f"{value:.2f}" for value in ours] == rows[name]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("  epochs: 36", "  epochs: 36\n  epoch: 36", "unknown key; did you mean 'epochs'"),
        ("mAP: 49.30", "mAP: 493.0", "493.0 is not accepted"),
        ("plane: 0.894423", "plane: 89.4423", "89.4423 is not accepted"),
        ("  epochs: 36\n", "", "is missing"),
        ("classes:\n  yoloms-xs-previous:", "classes:\n  yoloms-xxs:", "classes has 'yoloms-xxs'"),
    ],
)
def test_slips_are_named(tmp_path, before, after, message):
    text = (CONFIGS / "published.yaml").read_text()
    assert before in text
    path = tmp_path / "published.yaml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(SettingsError, match=message):
        load_published(path)
