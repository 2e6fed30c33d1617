"""Muon: orthogonal matrices against the singular value decomposition, and which optimiser updates what."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from tiltbox.model import build_detector
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmengine.optim import build_optim_wrapper  # noqa: E402

from tiltbox.training.muon import BLOCK, POLYNOMIALS, MuonAdamW, orthogonal  # noqa: E402

SHAPES = [(1, 1), (8, 8), (16, 40), (40, 16), (BLOCK, 500)]


def random(*shapes: tuple[int, int], seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw) for shape in shapes]


def test_nothing():
    assert orthogonal([]) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_become_about_one_and_vectors_stay(shape):
    (matrix,) = random(shape)
    (found,) = orthogonal([matrix])
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.mT @ found @ right.mT  # diagonal if the singular vectors are those of the matrix
    assert inner.diagonal().min() > 0.3 and inner.diagonal().max() < 1.33
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-3


def test_the_polynomials_take_singular_values_to_about_one():
    found = torch.logspace(math.log10(0.002), 0, 10_000, dtype=torch.float64) / 1.01  # as they are scaled
    for first, third, fifth in POLYNOMIALS:
        found = first * found + third * found**3 + fifth * found**5
    assert found.min() > 0.67 and found.max() < 1.33


def test_they_are_taken_of_the_matrix_itself():
    """Through its Gram matrix, to rounding."""
    for matrix, found in zip(random(*SHAPES), orthogonal(random(*SHAPES)), strict=True):
        x = matrix.double() / (matrix.double().norm() * 1.01 + 1e-7)
        x = x.mT if len(x) > x.shape[1] else x
        for first, third, fifth in POLYNOMIALS:
            gram = x @ x.mT
            x = first * x + (third * gram + fifth * gram @ gram) @ x
        x = x.mT if x.shape != found.shape else x
        assert found == pytest.approx(x.float(), abs=1e-4)


@pytest.mark.parametrize("shape", [(3 * BLOCK, 400), (400, 3 * BLOCK), (2 * BLOCK + 1, 700)])
def test_large_ones_go_by_blocks(shape):
    """Each block is what it would be alone, whatever is beside it."""
    (matrix,) = random(shape)
    whole, *_ = orthogonal([matrix, *random((8, 8), (BLOCK, 400))])
    tall = shape[0] > shape[1]
    wide, found = (matrix.mT, whole.mT) if tall else (matrix, whole)
    parts = list(wide.tensor_split(3))
    assert max(map(len, parts)) <= BLOCK
    alone = torch.cat(orthogonal(parts))
    assert found == pytest.approx(alone, abs=1e-4)


def test_a_gradient_of_zero_moves_nothing():
    (found,) = orthogonal([torch.zeros(4, 9)])
    assert not found.any()


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 1) -> None:
    draw = torch.Generator().manual_seed(1)
    for _ in range(count):
        model(torch.randn(2, 3, 8, 8, generator=draw)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_the_first_step_by_hand():
    """Along the orthogonal gradient, times the root of rows over columns if there are more rows."""
    model = two_layers()
    before, weight = copy.deepcopy(model), model[1].weight
    groups = [{"params": [weight], "lr": 0.1, "orthogonal": True}, {"params": [model[0].weight]}]
    stepped(model, MuonAdamW(groups, lr=0.01, weight_decay=0.0))
    reference = copy.deepcopy(before)
    reference(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    (direction,) = orthogonal([reference[1].weight.grad.flatten(1)])
    assert weight.detach() == pytest.approx(
        before[1].weight.detach() - 0.1 * direction.view_as(weight), abs=1e-6
    )
    assert model[1].bias.equal(before[1].bias)  # in no group
    moved = (model[0].weight - before[0].weight).detach().abs()
    assert moved == pytest.approx(torch.full_like(moved, 0.01), rel=1e-3)  # AdamW's first step


def test_stopped_and_resumed_it_takes_the_same_steps():
    def parts():
        model = two_layers()
        groups = [
            {"params": [layer.weight for layer in model], "orthogonal": True},
            {"params": [layer.bias for layer in model]},
        ]
        return model, MuonAdamW(groups, lr=0.01)

    straight, optimizer = parts()
    stepped(straight, optimizer, 2)
    halfway, saved = copy.deepcopy(straight.state_dict()), copy.deepcopy(optimizer.state_dict())
    stepped(straight, optimizer, 2)
    resumed, optimizer = parts()
    resumed.load_state_dict(halfway), optimizer.load_state_dict(saved)
    stepped(resumed, optimizer, 2)
    assert all(a.equal(b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("variant", ["yoloms-xs-previous", "yoloms-xs-current"])
def test_every_parameter_is_trained_by_one(variant):
    model = build_detector(variant)
    settings = {
        "type": "OptimWrapper",
        "constructor": "MuonConstructor",
        "optimizer": {"type": "MuonAdamW", "lr": 1e-3, "weight_decay": 0.05},
        "paramwise_cfg": {"muon_lr": 0.02},
    }
    groups = build_optim_wrapper(model, settings).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    weights, others, matrices = ([names[id(each)] for each in group["params"]] for group in groups)
    assert sorted(weights + others + matrices) == sorted(names.values())
    assert [group["lr"] for group in groups] == [1e-3, 1e-3, 0.02]
    assert [group["weight_decay"] for group in groups[:2]] == [0.05, 0]
    assert all(name.endswith(".weight") for name in matrices)
    assert {name for name in weights if "rtm_" in name} == {
        f"bbox_head.rtm_{part}.{level}.weight" for part in ("cls", "reg", "ang") for level in range(3)
    }
