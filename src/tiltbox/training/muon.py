"""Muon for the convolutions, AdamW for all else: far fewer steps from random weights than AdamW alone.

Muon (Keller Jordan, 2024, https://kellerjordan.github.io/posts/muon) averages gradients as momentum does, and
steps along the nearest matrix with all singular values about 1. So directions that few images ask for are
learned as fast as those that all ask for. The nearest matrix comes from polynomials of the averaged one.

With small images they cost as much as the detector itself. Three things make them cheap: large matrices are
made orthogonal in blocks of rows; the polynomials are of the small Gram matrix of a block, and the block is
multiplied by the result once, at the end; and they are the best ones for their number.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn

MOMENTUM = 0.95
BLOCK = 96  # the largest number of rows made orthogonal together
# Singular values from 0.002 to 1 become 1 ± 0.32, as with Jordan's five polynomials. Each is the best odd one
# of degree 5 for the range that the previous one leaves (Amsel et al., arXiv:2505.16932).
POLYNOMIALS = (  # every digit matters
    (8.42679, -24.93614, 18.49250),
    (4.11165, -3.05913, 0.57495),
    (3.71457, -2.77812, 0.54294),
    (2.78195, -2.07493, 0.46350),
)


@OPTIMIZERS.register_module()
class MuonAdamW(torch.optim.AdamW):
    """Muon for the groups whose ``orthogonal`` is true, AdamW for the others.

    Muon steps by the learning rate times an orthogonal matrix, times the square root of rows over columns if
    there are more rows; it does not decay weights.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The scaler of float16 then undoes its factor itself, before Muon averages the gradients.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update all parameters; the gradients that Muon used are deleted. Returns what ``closure`` gives."""
        for group in self.param_groups:
            if group.get("orthogonal"):
                self._muon(group["lr"], [each for each in group["params"] if each.grad is not None])
        return super().step(closure)  # skips parameters without a gradient

    def _muon(self, rate: float, parameters: list[nn.Parameter]) -> None:
        updates = orthogonal(self._smoothed(parameters))
        for parameter, update in zip(parameters, updates, strict=True):
            rows, columns = update.shape
            parameter.add_(update.reshape(parameter.shape), alpha=-rate * max(1.0, rows / columns) ** 0.5)
            parameter.grad = None

    def _smoothed(self, parameters: list[nn.Parameter]) -> Sequence[Tensor]:
        """Nesterov's momentum of each gradient, as a matrix of one row per output channel."""
        gradients = [each.grad.flatten(1) for each in parameters if each.grad is not None]
        averages = [self._average(*pair) for pair in zip(parameters, gradients, strict=True)]
        torch._foreach_lerp_(averages, gradients, 1 - MOMENTUM)
        return torch._foreach_lerp(gradients, averages, MOMENTUM)

    def _average(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # without it, AdamW does not load the state of a checkpoint
            state["exp_avg"] = torch.zeros_like(gradient)
        return state["exp_avg"]


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The nearest (semi-)orthogonal matrix to each, roughly; for large ones, to each block of rows.

    Blocks are cut along the shorter side, with at most 96 rows or columns. Blocks of one shape are batched.

    >>> (found,) = orthogonal([torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.2, 0.0]])])
    >>> bool(((found.diagonal() > 0.65) & (found.diagonal() < 1.33)).all())
    True
    """
    results = [torch.empty_like(matrix) for matrix in matrices]
    sources, targets = defaultdict(list), defaultdict(list)
    for matrix, result in zip(matrices, results, strict=True):
        for source, target in zip(_blocks(matrix), _blocks(result), strict=True):
            sources[source.shape].append(source)
            targets[source.shape].append(target)
    stacks = {shape: torch.stack(blocks) for shape, blocks in sources.items()}
    for rows in sorted({shape[0] for shape in stacks}):
        alike = [shape for shape in stacks if shape[0] == rows]
        factors = _factors(torch.cat([stacks[shape] @ stacks[shape].mT for shape in alike]))
        for shape, factor in zip(alike, factors.split([len(stacks[shape]) for shape in alike]), strict=True):
            torch._foreach_copy_(targets[shape], (factor @ stacks[shape]).unbind())
    return results


def _blocks(matrix: Tensor) -> list[Tensor]:
    """Views of at most ``BLOCK`` rows, all about as tall, none taller than wide."""
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    return list(wide.tensor_split(math.ceil(len(wide) / BLOCK)))


def _factors(grams: Tensor) -> Tensor:
    """(b, m, m) to (b, m, m): the factors that make blocks orthogonal, from their Gram matrices."""
    # Divided by the root of the trace, no singular value is above 1; the polynomials need slightly less.
    scales = 1.01 * grams.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None] + 1e-7
    grams = grams / scales**2
    factor = product = _polynomial(grams, *POLYNOMIALS[0])
    for coefficients in POLYNOMIALS[1:]:
        grams = factor @ grams @ factor
        factor = _polynomial(grams, *coefficients)
        product = factor @ product
    return product / scales


def _polynomial(grams: Tensor, first: float, third: float, fifth: float) -> Tensor:
    """``first + third * grams + fifth * grams @ grams``: odd in the blocks that it multiplies."""
    factor = torch.baddbmm(grams, grams, grams, beta=third, alpha=fifth)
    factor.diagonal(dim1=1, dim2=2).add_(first)
    return factor


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MuonConstructor(DefaultOptimWrapperConstructor):
    """Sorts parameters into three groups; ``paramwise_cfg`` gives ``muon_lr``, the rate of the convolutions.

    The layers that predict, depthwise convolutions and everything that is not a convolution are left to
    AdamW; norms and biases do not decay.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any]) -> None:
        self.muon_lr = paramwise_cfg["muon_lr"]
        super().__init__(optim_wrapper_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        matrices: list[nn.Parameter] = []
        weights: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
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
