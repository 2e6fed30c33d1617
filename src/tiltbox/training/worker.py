"""One training process: ``python -m tiltbox.training.worker CONFIG``, alone or under torchrun."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

from tiltbox.errors import EndedError, TiltboxError
from tiltbox.garbage import rarely_searched
from tiltbox.processes import end_with_parent
from tiltbox.training.ending import ToldToEnd
from tiltbox.training.failure import write_failure


def run(config: Path) -> None:
    """Train as the resolved configuration says; checkpoints and history go to its work folder."""
    with rarely_searched():
        import torch

        from tiltbox.model.compat import import_openmmlab

        import_openmmlab()

        from tiltbox.devices.leases import require_cuda
        from tiltbox.devices.threads import cpu_threads
        from tiltbox.training import modules  # noqa: F401  (registers)
        from tiltbox.training.config import read_config
        from tiltbox.training.resume import only_writer
        from tiltbox.training.room import require_room
        from tiltbox.training.runner import PreparingRunner
        from tiltbox.training.start import StartFromHook

    settings = read_config(config)
    on_cpu = settings.env_cfg.dist_cfg.backend == "gloo"
    if not on_cpu:
        require_cuda()  # mmengine would train on the CPU
    if settings.launcher == "pytorch":
        # Users cannot do anything about them.
        warnings.filterwarnings("ignore", message="Grad strides do not match|`broadcast_buffers` is")
        if on_cpu:
            torch.distributed.init_process_group("gloo")  # mmengine would look for a GPU first
    runner = PreparingRunner.from_cfg(settings)
    require_room(settings, runner.model)
    if settings.pretrained and not settings.resume:
        runner.register_hook(StartFromHook(settings.pretrained, settings.started))
    with cpu_threads(settings.cpu_threads), only_writer(Path(settings.work_dir), runner.rank):
        runner.train()


def main(config: Path) -> int:
    """Returns the exit code: 0 if the training is complete."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        run(config)
    except TiltboxError as error:
        write_failure(config, error)
        return 1
    except ToldToEnd as end:
        name = signal.Signals(end.number).name
        remedy = "start the same command again, and it resumes there"
        write_failure(config, EndedError("training", f"was told to end ({name}); its state is saved", remedy))
        return 128 + end.number
    except KeyboardInterrupt:  # before the training began
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    end_with_parent(os.getppid())  # under torchrun, which would leave it alone if killed
    code = main(Path(sys.argv[1]))
    gc.collect()  # ends the processes that load data; up to PyTorch 2.12, Python's exit waits 5 s for each
    sys.exit(code)
