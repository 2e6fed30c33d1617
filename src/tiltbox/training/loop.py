"""The training loop: it saves and resumes at any step, with the same bits as an undisturbed training.

What a step computes follows from the saved state, the seed and the position alone.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop

from tiltbox.errors import EndedError
from tiltbox.files.atomic import atomic_file
from tiltbox.training.ending import Notice, ToldToEnd, leave_deaths_to_the_loader
from tiltbox.training.passing import PassedError
from tiltbox.training.randomness import seed_all
from tiltbox.training.resume import checkpoint_of, drop_old
from tiltbox.training.stepping import AtOnce, Stepper

if TYPE_CHECKING:
    from mmengine.runner import Runner

LONG = 20_000  # steps

log = logging.getLogger("tiltbox")


@LOOPS.register_module()
class ResumableLoop(BaseLoop):
    """Trains for some epochs or, if ``max_steps`` is given, for one that has this many steps.

    Args:
        checkpoint_minutes: Time between checkpoints. There are more: before each validation, at the end, and
            when the training is told to end.
        images_at_once: See :class:`Stepper`.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,
        max_epochs: int,
        checkpoint_minutes: float,
        max_steps: int | None = None,
        images_at_once: AtOnce = None,
    ) -> None:
        super().__init__(runner, dataloader)
        self._at_once = images_at_once
        self.max_epochs, self._epoch_length = max_epochs, max_steps or len(self.dataloader)
        self.stop_training = False
        self._epoch = self._iter = 0  # mmengine sets them to resume
        self._interval = 60 * checkpoint_minutes
        self._notice = Notice()
        # A group of its own: on GPUs, theirs would wait for all that they still have to compute.
        several = runner.world_size > 1
        self._group = torch.distributed.new_group(backend="gloo") if several else None

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Finished steps."""
        return self._iter

    @property
    def max_iters(self) -> int:
        return self.max_epochs * self._epoch_length

    def run(self) -> torch.nn.Module:
        """Train to the end, from where the checkpoint was written.

        Raises:
            ToldToEnd: A signal came; the state is saved.
        """
        # For half a minute cuDNN tries its algorithms with each size of batch; steps are a tenth faster then.
        long = self.max_iters - self._iter >= LONG
        torch.backends.cudnn.benchmark = long and not torch.backends.cudnn.deterministic
        self._saved, self._saved_at = (self._epoch, self._iter), time.monotonic()
        self._stepper = Stepper(self.runner.model, self.runner.optim_wrapper, self._at_once)
        with self._notice.awaited(), self._end_explained():
            self.runner.call_hook("before_train")
            while self._epoch < self.max_epochs and not self.stop_training:
                self._run_epoch()
            self.runner.call_hook("after_train")
            self.save()
        return self.runner.model

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Save the state, then let signals cut off the block, which is done again after a resume."""
        self.save()
        with self._notice.obeyed_at_once():
            yield

    def save(self) -> None:
        """Write a checkpoint of the present state; to be called in all processes."""
        if self._saved == (self._epoch, self._iter):
            return
        self.runner.call_hook("gather_state")
        if self.runner.rank == 0:
            work = Path(self.runner.work_dir)
            with atomic_file(checkpoint_of(work, self._iter)) as temporary:
                position = {"epoch": self._epoch, "iter": self._iter}
                self.runner.save_checkpoint(str(temporary.parent), temporary.name, meta=position)
            drop_old(work)
        self._saved, self._saved_at = (self._epoch, self._iter), time.monotonic()

    @contextmanager
    def _end_explained(self) -> Iterator[None]:
        try:
            yield
        except ToldToEnd as end:
            if self.runner.rank == 0:
                name = signal.Signals(end.number).name
                log.info("told to end (%s): the state after step %d is saved", name, self._iter)
            raise

    def _run_epoch(self) -> None:
        """What is left of an epoch; after a resume that may be no step."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        batches, end = self._batches(), (self._epoch + 1) * self._epoch_length
        while self._iter < end:
            batch = _next(batches)
            self._heed(loaded=batch is not None)
            self._step(batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _batches(self) -> Iterator[Any]:
        """Batches from the present position, in pass after pass over the images."""
        while True:
            shown, done = divmod(self._iter, len(self.dataloader))
            self.dataloader.sampler.start_at(shown, done * self.dataloader.batch_size)
            loaded = iter(self.dataloader)
            leave_deaths_to_the_loader()
            yield from loaded

    def _step(self, batch: Any) -> None:
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=batch)
        seed_all(self.runner.seed, self.runner.rank, self._iter)
        outputs = self._stepper.step(batch)
        self.runner.call_hook("after_train_iter", batch_idx=self._iter, data_batch=batch, outputs=outputs)
        self._iter += 1

    def _heed(self, *, loaded: bool) -> None:
        """Save if it is time, or if any process was told to end or has lost its data; in the latter, end."""
        due = self.runner.rank == 0 and time.monotonic() - self._saved_at >= self._interval
        due, told, lost = self._agreed(due, self._notice.number, not loaded)
        if due or told or lost:
            self.save()
        if told:
            raise ToldToEnd(told)
        if lost:
            problem = "a data loading process was killed, probably because memory ran out"
            remedy = f"use fewer workers in the schedule; the same command resumes from step {self._iter}"
            raise EndedError("training", problem, remedy)

    def _agreed(self, *mine: int) -> list[int]:
        """The highest of each number over all processes."""
        if self._group is None:
            return list(mine)
        numbers = torch.tensor(mine)
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX, self._group)
        return numbers.tolist()


def _next(batches: Iterator[Any]) -> Any:
    """The next batch; None if the process that loads it was killed."""
    try:
        return next(batches)
    except PassedError as error:
        raise error.original() or error from None
    except (ConnectionError, EOFError, RuntimeError) as error:
        if _is_loss(error):
            return None
        raise


def _is_loss(error: Exception) -> bool:
    """Whether the process that loads data was killed, perhaps while it sent a batch.

    In trainings on a GPU, a thread of the loader receives batches, and ends if that breaks off.
    """
    text = str(error)
    if text.startswith("Caught "):  # an error in that process, which lives
        return False
    signs = ("DataLoader worker (pid", "Pin memory thread")
    return not isinstance(error, RuntimeError) or text.startswith(signs)
