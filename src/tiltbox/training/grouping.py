"""Parameters in as few groups as possible, since an optimiser starts its kernels for each group."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupingConstructor(DefaultOptimWrapperConstructor):
    """mmengine's own, which makes a group of every parameter; here those alike share one."""

    def __call__(self, model: nn.Module) -> OptimWrapper:
        each: list[dict[str, Any]] = []
        self.add_params(each, getattr(model, "module", model))
        groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        for group in each:
            parameters = [parameter for parameter in group.pop("params") if parameter.requires_grad]
            alike = groups.setdefault(tuple(sorted(group.items())), {**group, "params": []})
            alike["params"] += parameters
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": list(groups.values())})
        return OPTIM_WRAPPERS.build({**self.optim_wrapper_cfg, "optimizer": optimizer})
