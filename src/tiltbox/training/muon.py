"""Muon for the convolutions, AdamW for all else: far fewer steps from random weights than AdamW alone.

Muon (Keller Jordan, 2024, https://kellerjordan.github.io/posts/muon) averages gradients as momentum does, and
steps along the nearest matrix whose singular values all are about 1, so that directions which few images ask
for are learned as fast as those that all do. The nearest matrix comes from Newton and Schulz's iteration.

That iteration costs as much as the detector itself where images are small. Two things make it cheap: wide
matrices are made orthogonal in blocks of rows, and the iteration runs on the small Gram matrix of a block,
which is multiplied to the block once, at the end.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn

MOMENTUM = 0.95
BLOCK = 96  # rows made orthogonal together, at most
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's; takes singular values in (0, 1] to about 1, give or take 0.3


@OPTIMIZERS.register_module()
class MuonAdamW(torch.optim.AdamW):
    """Muon for the groups whose ``orthogonal`` is true, AdamW for the others.

    Muon steps by the learning rate times an orthogonal matrix, times the square root of rows over columns
    where there are more rows; it does not decay weights.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """Update all parameters; the gradients that Muon used are gone afterwards."""
        for group in self.param_groups:
            if group.get("orthogonal"):
                self._muon(group["lr"], [each for each in group["params"] if each.grad is not None])
        return super().step(closure)  # which passes over parameters without a gradient

    def _muon(self, rate: float, parameters: list[nn.Parameter]) -> None:
        updates = orthogonal([self._smoothed(each) for each in parameters])
        for parameter, update in zip(parameters, updates, strict=True):
            rows, columns = update.shape
            parameter.add_(update.reshape(parameter.shape), alpha=-rate * max(1.0, rows / columns) ** 0.5)
            parameter.grad = None

    def _smoothed(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov's momentum of the gradient, as a matrix of one row per output channel."""
        gradient, state = parameter.grad.flatten(1), self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # without which AdamW takes no state back from a checkpoint
            state["exp_avg"] = torch.zeros_like(gradient)
        state["exp_avg"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["exp_avg"], MOMENTUM)


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The nearest (semi-)orthogonal matrix of each, roughly; of large ones, of each block of rows.

    Blocks are cut from the shorter side, at most 96 rows or columns each. Blocks of one shape go together.

    >>> (found,) = orthogonal([torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.2, 0.0]])])
    >>> bool(((found.diagonal() > 0.65) & (found.diagonal() < 1.25)).all())
    True
    """
    results = [torch.empty_like(matrix) for matrix in matrices]
    sources, targets = defaultdict(list), defaultdict(list)
    for matrix, result in zip(matrices, results, strict=True):
        for source, target in zip(_blocks(matrix), _blocks(result), strict=True):
            sources[source.shape].append(source)
            targets[source.shape].append(target)
    for shape, blocks in sources.items():
        for target, found in zip(targets[shape], _newton_schulz(torch.stack(blocks)), strict=True):
            target.copy_(found)
    return results


def _blocks(matrix: Tensor) -> list[Tensor]:
    """Views of at most ``BLOCK`` rows, all about as tall, none taller than wide."""
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    return list(wide.tensor_split(math.ceil(len(wide) / BLOCK)))


def _newton_schulz(blocks: Tensor) -> Tensor:
    """(b, m, n) with m <= n: the same polynomials of ``blocks @ blocks.mT`` as of the blocks themselves."""
    first, third, fifth = QUINTIC
    blocks = blocks / (blocks.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = blocks @ blocks.mT
    unit = torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
    product = unit
    for _ in range(ITERATIONS):
        factor = first * unit + third * gram + fifth * (gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ blocks


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MuonConstructor(DefaultOptimWrapperConstructor):
    """Sorts parameters into three groups; ``paramwise_cfg`` gives ``muon_lr``, the rate of the convolutions.

    The layers that predict, depthwise convolutions and all that is no convolution are left to AdamW; norms
    and biases do not decay.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict) -> None:
        self.muon_lr = paramwise_cfg["muon_lr"]
        super().__init__(optim_wrapper_cfg)

    def __call__(self, model: nn.Module):
        matrices, weights, others = [], [], []
        for name, parameter in getattr(model, "module", model).named_parameters():
            is_matrix = parameter.ndim == 4 and parameter.shape[1] > 1 and "bbox_head.rtm_" not in name
            (matrices if is_matrix else weights if parameter.ndim > 1 else others).append(parameter)
        groups = [
            {"params": weights},
            {"params": others, "weight_decay": 0.0},
            {"params": matrices, "lr": self.muon_lr, "orthogonal": True},
        ]
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": groups})
        return OPTIM_WRAPPERS.build({**self.optim_wrapper_cfg, "optimizer": optimizer})
