"""mmengine's Runner, which prepares the layers of a detector for its device."""

from __future__ import annotations

from typing import Any

from mmengine.runner import Runner
from torch import nn

from tiltbox.training.network import prepare


class PreparingRunner(Runner):
    """Runner that changes the layout of weights before several processes share gradients.

    PyTorch's DistributedDataParallel remembers the layout of each weight. If that changes later, the first
    step, also that after a resume, has the gradients of a convolution in the wrong places.
    """

    def build_model(self, model: Any) -> nn.Module:
        built = super().build_model(model)
        cuda = self.cfg.env_cfg.dist_cfg.backend != "gloo"
        prepare(built, cuda=cuda, captured=self.cfg.captured)
        return built
