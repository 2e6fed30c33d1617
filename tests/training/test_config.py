"""The configuration of mmengine, compared with the published recipe as written."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.model import build_detector
from tiltbox.model.compat import import_openmmlab
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import OTHERS, Schedule, find_schedule
from tiltbox.training import grouping  # noqa: F401  (registers)
from tiltbox.training.config import runner_config

import_openmmlab()
import mmrotate  # noqa: E402
from mmdet.models.layers import ExpMomentumEMA  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope  # noqa: E402
from mmrotate.registry import MODELS  # noqa: E402

STEPS_AN_EPOCH = 1500


def config_of(schedule: Schedule | str, variant: str = "yoloms-xs-current", *, cuda: bool = True):
    schedule = find_schedule(schedule) if isinstance(schedule, str) else schedule
    folder = Path("nowhere")
    return runner_config(find_variant(variant), schedule, folder, folder, DOTA_V1_CLASSES, cuda=cuda)


def learning_rates(config, rate: float | None = None) -> list[float]:
    """The learning rate of every step, as mmengine's own schedulers set it, of a group with this ``rate``."""
    rate = rate or config.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    schedulers = []
    for scheduler in config.param_scheduler:
        settings = dict(scheduler)
        kind = PARAM_SCHEDULERS.get(settings.pop("type"))
        if settings.pop("convert_to_iter_based", False):
            schedulers.append(kind.build_iter_from_epoch(optimizer, epoch_length=STEPS_AN_EPOCH, **settings))
        else:
            schedulers.append(kind(optimizer, **settings))
    rates = []
    for _ in range(config.train_cfg.max_epochs * STEPS_AN_EPOCH):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


def test_learning_rate_of_every_step():
    """Linear from 1e-5 of it over 1,000 steps, constant up to epoch 18, a cosine to 5 % at epoch 36."""
    full, turn, end = 0.004 / 16, 18 * STEPS_AN_EPOCH, 36 * STEPS_AN_EPOCH

    def expected(step: int) -> float:
        if step < 1000:
            return full * (1e-5 + (1 - 1e-5) * step / 999)
        share = max(0.0, (step - turn) / (end - turn))
        return full * (0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)

    rates = learning_rates(config_of("dota-2gpu"))
    assert rates == pytest.approx([expected(step) for step in range(end)], rel=1e-6)


@pytest.mark.parametrize("schedule", ["dota-2gpu", "dota-1gpu", "dota-cpu"])
def test_scaled_schedules(schedule):
    """With fewer images per step: smaller in proportion, over more steps in proportion."""
    recipe, found = find_schedule("dota-2gpu"), find_schedule(schedule)
    share = found.processes * found.batch / (recipe.processes * recipe.batch)
    assert found.learning_rate == recipe.learning_rate * share
    assert found.warmup_steps * share == recipe.warmup_steps
    assert found.ema_momentum == pytest.approx(recipe.ema_momentum * share)
    assert (found.epochs, found.constant_share) == (recipe.epochs, recipe.constant_share)


def test_averaged_weights():
    """Exponential momentum of 0.0002, buffers included, before the checkpoint is written."""
    hooks = {hook["type"]: hook for hook in config_of("dota-2gpu").custom_hooks}
    assert set(hooks) == {"FiniteHook", "HistoryHook", "EMAHook"}
    ema = hooks["EMAHook"]
    assert (ema["ema_type"], ema["momentum"], ema["update_buffers"]) == ("AveragedWeights", 2e-4, True)
    none = find_schedule("dota-2gpu").model_copy(update={"ema_momentum": None})
    assert [hook["type"] for hook in config_of(none).custom_hooks] == ["FiniteHook", "HistoryHook"]


@pytest.mark.parametrize(
    ("size", "schedule"), [("tiny", "rtmdet-r"), ("s", "rtmdet-r"), ("m", "rtmdet-r"), ("l", "dota-2gpu")]
)
def test_the_recipe_of_rtmdet_is_mmrotates(size, schedule):
    """All that its public config sets: steps, rates, weight decay, averaging, augmentation and losses."""
    folder = Path(mmrotate.__file__).parent / ".mim" / "configs" / "rotated_rtmdet"
    theirs = Config.fromfile(folder / f"rotated_rtmdet_{size}-3x-dota.py")
    ours = config_of(schedule, f"rtmdet-r-{size}")
    assert ours.train_dataloader.batch_size == theirs.train_dataloader.batch_size
    assert ours.train_cfg.max_epochs == theirs.train_cfg.max_epochs
    assert learning_rates(ours) == pytest.approx(learning_rates(theirs), rel=1e-6)
    for key in ("type", "lr", "weight_decay"):
        assert ours.optim_wrapper.optimizer[key] == theirs.optim_wrapper.optimizer[key]
    assert ours.optim_wrapper.paramwise_cfg == theirs.optim_wrapper.paramwise_cfg
    (averaging,) = (hook for hook in theirs.custom_hooks if hook["type"] == "EMAHook")
    (found,) = (hook for hook in ours.custom_hooks if hook["type"] == "EMAHook")
    assert (found.momentum, found.update_buffers) == (averaging.momentum, averaging.update_buffers)
    assert found.gamma == inspect.signature(ExpMomentumEMA).parameters["gamma"].default
    steps = {step["type"]: step for step in theirs.train_dataloader.dataset.pipeline}
    mine = {step["type"]: step for step in ours.train_dataloader.dataset.pipeline}
    assert mine["mmdet.RandomFlip"] == steps["mmdet.RandomFlip"]
    for key in ("prob", "angle_range", "rect_obj_labels"):
        assert mine["RandomRotate"][key] == steps["RandomRotate"][key]
    classes = theirs.model.bbox_head.loss_cls
    assert (classes.loss_weight, classes.beta) == (1.0, ours.model.bbox_head.loss_cls.focus)
    assert ours.model.bbox_head.loss_bbox.loss_weight == theirs.model.bbox_head.loss_bbox.loss_weight
    assert ours.model.train_cfg.assigner.topk == theirs.model.train_cfg.assigner.topk


@pytest.mark.parametrize("variant", ["yoloms-xs-previous", "yoloms-xs-current"])
def test_weight_decay(variant):
    """0.05, none on norms and biases; every parameter is trained, once."""
    config, model = config_of("dota-2gpu", variant), build_detector(variant)
    with DefaultScope.overwrite_default_scope("mmrotate"):
        optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    decay = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert isinstance(optimizer, torch.optim.AdamW) and len(optimizer.param_groups) == 2
    assert set(decay) == {id(parameter) for parameter in model.parameters()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(decay)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            free = isinstance(module, nn.modules.batchnorm._BatchNorm) or name == "bias"
            assert decay[id(parameter)] == (0 if free else 0.05), (type(module), name)


@pytest.mark.parametrize(
    ("processes", "cuda", "shared"), [(2, True, True), (1, True, False), (2, False, False), (1, False, False)]
)
def test_batch_norm_is_shared_between_gpus_alone(processes, cuda, shared):
    schedule = find_schedule("dota-2gpu").model_copy(update={"processes": processes})
    config = config_of(schedule, cuda=cuda)
    assert config.model.use_syncbn is shared
    assert config.launcher == ("pytorch" if processes > 1 else "none")
    assert config.env_cfg.dist_cfg.backend == ("nccl" if cuda else "gloo")


SMALL = find_schedule("small-cpu").model_copy(update={"epochs": {OTHERS: 12}})
GROWING = {"image_size": 256, "early_scale": 0.75, "early_share": 0.5, "mosaic": 1.0, "mosaic_share": 0.75}


@pytest.mark.parametrize("schedule", ["dota-2gpu", "dota-1gpu", "dota-cpu"])
def test_the_published_recipe_is_mmdets_to_the_last_setting(schedule):
    config = config_of(schedule)
    head, assigner = config.model.bbox_head, config.model.train_cfg.assigner
    assert dict(assigner) == {
        "type": "DynamicSoftLabel",
        "topk": 13,
    }
    assert dict(head.loss_cls) == {
        "type": "FocusedCrossEntropy",
        "use_sigmoid": True,
        "focus": 2.0,
    }
    assert dict(head.loss_bbox) == {"type": "LinearRotatedIoULoss", "loss_weight": 2.0}
    assert [step["type"] for step in config.train_dataloader.dataset.pipeline] == [
        "ReadPatch",  # and the others named Patch: mmdet's, as test_reading.py shows
        "mmdet.LoadAnnotations",
        "QuadsToRboxes",  # mmrotate's ConvertBoxType, except for quads that OpenCV cannot handle
        "ResizePatch",
        "mmdet.RandomFlip",
        "RandomRotate",
        "PadPatch",
        "mmdet.PackDetInputs",
    ]
    assert config.optim_wrapper.optimizer.type == "AdamW"
    assert config.optim_wrapper.constructor == "GroupingConstructor"  # two groups: test_weight_decay


@pytest.mark.parametrize("variant", ["yoloms-xs-previous", "yoloms-xs-current"])
def test_a_recipe_does_not_change_the_detector(variant):
    """Its keys, shapes and outputs: weights of one recipe load with the configuration of any other."""
    with DefaultScope.overwrite_default_scope("mmrotate"):
        plain, small = (MODELS.build(config_of(each, variant).model) for each in ("dota-2gpu", SMALL))
    small.load_state_dict(plain.state_dict(), strict=True)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        outputs = [model.eval()(image, mode="tensor") for model in (plain, small)]
    for one, other in zip(*outputs, strict=True):
        assert all(a.equal(b) for a, b in zip(one, other, strict=True))


def test_a_linear_fall_begins_after_the_constant_part():
    changes = {"constant_share": 0.25, "warmup_steps": 0, "decay": "linear", "final_share": 0.01}
    schedule = SMALL.model_copy(update=changes)
    rates, end = learning_rates(config_of(schedule)), 12 * STEPS_AN_EPOCH
    turn = 3 * STEPS_AN_EPOCH
    expected = [
        0.002 * (1 - 0.99 * max(0.0, (step - turn) / (end - turn - 1))) for step in range(turn, end, 997)
    ]
    assert rates[:turn] == pytest.approx([0.002] * turn)
    assert rates[turn:end:997] == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(("decay", "final"), [("linear", 0.01), ("cosine", 0.05)])
def test_muons_rate_falls_like_the_other(decay, final):
    """Muon's rate falls to the same share of its own."""
    changes = {"decay": decay, "final_share": final, "warmup_steps": 0}
    config = config_of(SMALL.model_copy(update=changes))
    last = [rates[-1] for rates in (learning_rates(config, rate) for rate in (0.002, 0.02))]
    assert last == pytest.approx([0.002 * final, 0.02 * final], rel=1e-3)


def test_muons_rate_is_scaled():
    schedule = SMALL.model_copy(update={"batch": 8})
    assert schedule.learning_rate == 2 * SMALL.learning_rate
    assert schedule.muon_learning_rate == 2 * SMALL.muon_learning_rate
    settings = config_of(schedule).optim_wrapper
    assert settings.paramwise_cfg.muon_lr == schedule.muon_learning_rate


def shown(schedule: Schedule) -> list[tuple[int, bool, int]]:
    """From which epoch on images are shown with or without mosaics, and how large."""
    config = config_of(schedule)
    pipelines = {0: config.train_dataloader.dataset.pipeline}
    for hook in config.custom_hooks:
        if hook["type"] == "mmdet.PipelineSwitchHook":
            pipelines[hook.switch_epoch] = hook.switch_pipeline
    return [
        (
            epoch,
            pipeline[0].type == "Mosaic",
            next(step.size for step in pipeline if step.type == "PadPatch")[0],
        )
        for epoch, pipeline in pipelines.items()
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [(0, True, 192), (6, True, 256), (9, False, 256)]),
        ({"early_scale": 1}, [(0, True, 256), (9, False, 256)]),
        ({"early_scale": 0.9}, [(0, True, 224), (6, True, 256), (9, False, 256)]),
        ({"early_scale": 0.97}, [(0, True, 256), (9, False, 256)]),  # less than 32 px
        ({"early_share": 0}, [(0, True, 256), (9, False, 256)]),
        ({"early_share": 0.75}, [(0, True, 192), (9, False, 256)]),
        ({"mosaic": 0}, [(0, False, 192), (6, False, 256)]),
        ({"mosaic_share": 1}, [(0, True, 192), (6, True, 256)]),
        ({"mosaic_share": 0}, [(0, False, 192), (6, False, 256)]),
        ({"mosaic": 0, "early_scale": 1}, [(0, False, 256)]),
        ({"max_steps": 50}, [(0, True, 256)]),
    ],
)
def test_how_images_are_shown(changes, expected):
    schedule = SMALL.model_copy(update={**GROWING, **changes})
    assert schedule.epochs == {OTHERS: 12}
    assert shown(schedule) == expected


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, [(0, False, 256)]),
        (2, [(0, True, 192), (1, False, 256)]),
        (3, [(0, True, 192), (2, False, 256)]),
        (4, [(0, True, 192), (2, True, 256), (3, False, 256)]),
    ],
)
def test_the_last_epoch_of_a_few_is_plain(epochs, expected):
    few = {OTHERS: epochs}
    assert shown(SMALL.model_copy(update={**GROWING, "epochs": few})) == expected


def test_the_published_recipe_shows_images_as_they_are():
    assert shown(find_schedule("dota-2gpu")) == [(0, False, 1024)]


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_what_repeats_on_a_gpu_is_asked_for_there_alone(cuda, wanted):
    config = config_of(SMALL.model_copy(update={"deterministic": wanted}), cuda=cuda)
    assert config.randomness.deterministic == (cuda and wanted)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", {"type": "OptimWrapper"}),
        ("float16", {"type": "AmpOptimWrapper", "dtype": "float16", "loss_scale": "dynamic"}),
        ("bfloat16", {"type": "AmpOptimWrapper", "dtype": "bfloat16", "loss_scale": {"enabled": False}}),
    ],
)
def test_precision_of_layers_is_for_gpus(precision, expected):
    schedule = SMALL.model_copy(update={"precision": precision})
    found = config_of(schedule, cuda=True).optim_wrapper
    assert {key: found.get(key) for key in expected} == expected
    assert config_of(schedule, cuda=False).optim_wrapper.type == "OptimWrapper"


@pytest.mark.parametrize(
    ("changes", "cuda", "captured"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"cuda_graphs": False}, True, False),
        ({"processes": 2}, True, False),
        ({"images_at_once": 2}, True, False),
        ({"images_at_once": "auto"}, True, False),
    ],
)
def test_layers_are_recorded_on_one_gpu_where_a_step_is_computed_at_once(changes, cuda, captured):
    schedule = SMALL.model_copy(update={"processes": 1, **changes})
    assert config_of(schedule, cuda=cuda).captured == captured


def test_steps_instead_of_epochs():
    config = config_of("smoke", cuda=False)
    assert (config.train_cfg.max_epochs, config.train_cfg.max_steps) == (1, 2)
    assert config.param_scheduler == []
