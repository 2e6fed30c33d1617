"""Room on the disk for the checkpoints of a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from tiltbox.files.space import bytes_of_training, require_space

if TYPE_CHECKING:
    from mmengine.config import Config


def require_room(config: Config, model: nn.Module) -> None:
    """Raise OutputError unless the results of this training fit on the disk of its work folder.

    A training that is resumed has checkpoints, which it will replace: it needs room for its result only.
    """
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    made = 0 if config.resume else 1  # a long training keeps two, a short one writes a single one
    averaged = any(hook.type == "EMAHook" for hook in config.custom_hooks)
    needed = bytes_of_training(weights, made, averaged=averaged)
    require_space(Path(config.work_dir), needed)
