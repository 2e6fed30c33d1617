from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tiltbox.errors import TrainingError
from tiltbox.training.finite import FiniteHook

RUNNER = SimpleNamespace(iter=6, epoch=1, max_iters=20)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("loss", "said"), [(NAN, "nan"), (INF, "inf")])
def test_a_loss_that_is_not_finite_ends_the_training(loss, said):
    with pytest.raises(
        TrainingError, match=rf"^step 7 of 20, epoch 2: the loss is {said}, .*; lower base_lr"
    ):
        FiniteHook().after_train_iter(RUNNER, 0, outputs={"loss": torch.tensor(loss)})


@pytest.mark.parametrize("bad", [0, 4, 6])
def test_losses_of_a_gpu_are_looked_at_from_time_to_time(bad):
    """Each look makes the processor wait. The step is that of the first loss that is not finite."""

    class OnGPU(torch.Tensor):
        is_cpu = False

    hook = FiniteHook()
    for step in range(7):
        loss = torch.tensor(NAN if step >= bad else 1.0).as_subclass(OnGPU)
        hook.after_train_iter(SimpleNamespace(iter=step, epoch=1, max_iters=20), 0, outputs={"loss": loss})
    after = SimpleNamespace(iter=7, epoch=1, max_iters=20)
    with pytest.raises(TrainingError, match=rf"^step {bad + 1} of 20, epoch 2: the loss is nan"):
        hook.after_train_epoch(after)


def test_a_finite_one_does_not():
    FiniteHook().after_train_iter(RUNNER, 0, outputs={"loss": torch.tensor(1e30)})


@pytest.mark.parametrize("value", [NAN, INF])
def test_weights_that_are_not_finite_are_not_saved(value):
    good = {"conv.weight": torch.ones(3), "bn.num_batches_tracked": torch.tensor(3)}
    checkpoint = {"state_dict": good}
    FiniteHook().before_save_checkpoint(RUNNER, checkpoint)
    checkpoint["state_dict"] = {**good, "head.bias": torch.tensor([1.0, value])}
    with pytest.raises(TrainingError, match=r"head\.bias contains numbers that are not finite"):
        FiniteHook().before_save_checkpoint(RUNNER, checkpoint)
