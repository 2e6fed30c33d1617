"""The six detectors against the facts of the public ones: keys, shapes, parameters, forward outputs."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import pytest
import torch

from tiltbox.errors import SettingsError
from tiltbox.model import build_detector
from tiltbox.settings.variants import load_variants

REFERENCE = json.loads((Path(__file__).parent / "yoloms.json").read_text())


def fixed_value(key: str, like: torch.Tensor) -> torch.Tensor:
    """The reference's recipe for a state-dict entry that depends on nothing but its name and shape."""
    if not like.is_floating_point():
        return torch.zeros_like(like)
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    r = torch.rand(like.shape, generator=generator, dtype=torch.float64)
    if key.endswith("running_var") or (like.dim() == 1 and key.endswith("weight")):
        return (0.5 + r).float()
    if like.dim() >= 2:
        return ((r - 0.5) * 2 * math.sqrt(3 / like[0].numel())).float()
    return ((r - 0.5) * 0.2).float()


def test_the_reference_covers_all_variants():
    assert set(load_variants().variants) == set(REFERENCE)


@pytest.mark.parametrize("name", REFERENCE)
def test_keys_shapes_and_parameters(name):
    model = build_detector(name)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == REFERENCE[name]["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == REFERENCE[name]["params"]


@pytest.mark.parametrize("name", [name for name, facts in REFERENCE.items() if "forward" in facts])
def test_forward_outputs(name):
    model = build_detector(name).eval()
    model.load_state_dict({key: fixed_value(key, value) for key, value in model.state_dict().items()})
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        outputs = model(x, mode="tensor")
    for kind, maps in zip(("cls_score", "bbox_pred", "angle_pred"), outputs, strict=True):
        for level, values in enumerate(maps):
            expected = REFERENCE[name]["forward"][f"{kind}.{level}"]
            assert list(values.shape) == expected["shape"]
            picked = values.flatten()[torch.linspace(0, values.numel() - 1, 12).long()]
            torch.testing.assert_close(picked, torch.tensor(expected["samples"]), atol=1e-4, rtol=0)
            assert values.mean().item() == pytest.approx(expected["mean"], abs=1e-4)
            assert values.std().item() == pytest.approx(expected["std"], abs=1e-4)


def test_another_number_of_classes():
    scores, _, _ = build_detector("yoloms-xs-current", num_classes=3)(
        torch.zeros(1, 3, 64, 64), mode="tensor"
    )
    assert [tuple(s.shape) for s in scores] == [(1, 3, 8, 8), (1, 3, 4, 4), (1, 3, 2, 2)]


def test_an_unknown_variant_is_named_with_its_nearest():
    with pytest.raises(
        SettingsError, match=r"unknown variant 'yoloms-xs-curent'; did you mean 'yoloms-xs-current'"
    ):
        build_detector("yoloms-xs-curent")
