"""One training process: ``python -m tiltbox.training.worker CONFIG``, alone or under torchrun."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import torch

from tiltbox.errors import TiltboxError
from tiltbox.model.compat import import_openmmlab
from tiltbox.training.failure import write_failure


def run(config: Path) -> None:
    """Train as the resolved configuration says; checkpoints and history go to its work folder."""
    import_openmmlab()
    from mmengine.runner import Runner

    from tiltbox.training import modules  # noqa: F401  (registers)
    from tiltbox.training.config import read_config
    from tiltbox.training.devices import cpu_threads
    from tiltbox.training.network import prepare
    from tiltbox.training.start import StartFromHook

    settings = read_config(config)
    on_cpu = settings.env_cfg.dist_cfg.backend == "gloo"
    if settings.launcher == "pytorch" and on_cpu:
        torch.distributed.init_process_group("gloo")  # mmengine would look for a GPU first
    runner = Runner.from_cfg(settings)
    prepare(runner.model, cuda=not on_cpu, compiled=settings.compiled)
    if settings.pretrained and not settings.resume:
        runner.register_hook(StartFromHook(settings.pretrained, settings.started))
    with cpu_threads(settings.cpu_threads):
        runner.train()


def main(config: Path) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        run(config)
    except TiltboxError as error:
        write_failure(config, error)
        return 1
    except KeyboardInterrupt:  # the command that started this one reports it
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
