"""A training step by part, beside mmrotate's: ``python benchmarks/training.py``, on a GPU if there is one.

Both train the same detector on the same batches. mmrotate's step has its head's targets and losses, mmdet's
assigner (with tiltbox's rotated IoU, since mmcv's has to be compiled) and averages, and mmengine's parameter
groups, and computes in float32.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import logging
import math
import os
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measure import machine, table
from peer_head import as_in_mmrotate

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmdet.models.layers import ExpMomentumEMA  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import MODELS, DefaultScope  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402
from mmrotate.structures import RotatedBoxes  # noqa: E402

from tiltbox.model.variants import find_variant  # noqa: E402
from tiltbox.settings.schedules import find_schedule  # noqa: E402
from tiltbox.training import modules  # noqa: E402, F401  (registers)
from tiltbox.training.averaging import AveragedWeights  # noqa: E402
from tiltbox.training.captured import ALIKE  # noqa: E402
from tiltbox.training.config import runner_config  # noqa: E402
from tiltbox.training.network import CapturedDetector, prepare  # noqa: E402

PARTS = ("layers", "targets and losses", "backward", "optimiser", "averages")


class Way(NamedTuple):
    """How to train: mmrotate's way or tiltbox's, and with what precision."""

    name: str
    peer: bool = False
    precision: str = "float32"
    captured: bool = False
    deterministic: bool = False


CPU_WAYS = (Way("mmrotate", peer=True), Way("tiltbox"))
GPU_WAYS = (
    Way("mmrotate", peer=True),
    Way("tiltbox, not captured"),
    Way("tiltbox", captured=True),
    Way("tiltbox, deterministic", captured=True, deterministic=True),
    Way("tiltbox, bfloat16", precision="bfloat16", captured=True),
    Way("tiltbox, float16", precision="float16", captured=True),
)


class Training:
    """One detector with its optimiser and averages, ready to do steps."""

    def __init__(self, variant: str, way: Way, device: str) -> None:
        torch.use_deterministic_algorithms(way.deterministic)
        torch.backends.cudnn.deterministic = way.deterministic
        schedule = find_schedule("dota-1gpu").model_copy(update={"precision": way.precision})
        cuda = device == "cuda"
        config = runner_config(find_variant(variant), schedule, Path(), Path(), DOTA_V1_CLASSES, cuda=cuda)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmrotate"):
            self.model = MODELS.build(config.model)
            self.model.init_weights()
            if way.peer:
                as_in_mmrotate(self.model.bbox_head)
            self.model = self.model.to(device).train()
            if not way.peer:
                prepare(self.model, cuda=cuda, captured=way.captured)
        settings = copy.deepcopy(config.optim_wrapper)
        if way.peer:
            settings.pop("constructor")
        self.optimizer = build_optim_wrapper(self.model, settings)
        self.averages = (ExpMomentumEMA if way.peer else AveragedWeights)(self.model, update_buffers=True)
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device

    def step(self, batch: dict[str, Any], *, by_part: bool = False) -> None:
        """One step; ``by_part`` waits for the GPU after each part, and so takes longer in all."""
        part = self._part if by_part else lambda name: nullcontext()
        data = self.model.data_preprocessor(batch, True)
        truth = [sample.gt_instances for sample in data["data_samples"]]
        metas = [sample.metainfo for sample in data["data_samples"]]
        with self.optimizer.optim_context(self.model):
            with part("layers"):
                outputs = self._outputs(data["inputs"])
            with part("targets and losses"):
                losses = self.model.bbox_head.loss_by_feat(*outputs, truth, metas)
                loss, _ = self.model.parse_losses(losses)
        with part("backward"):
            self.optimizer.backward(loss)
        with part("optimiser"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        with part("averages"):
            self.averages.update_parameters(self.model)

    def _outputs(self, images: torch.Tensor) -> Any:
        if isinstance(self.model, CapturedDetector):
            return self.model.outputs(images)
        return self.model.bbox_head(self.model.extract_feat(images))

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        wait(self._device)
        before = time.perf_counter()
        yield
        wait(self._device)
        self.seconds[name] += time.perf_counter() - before


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--variants", nargs="+", default=["yoloms-xs-current"])
    options.add_argument("--size", type=int, help="side of the images in pixels: 256 on a CPU, 1024 on a GPU")
    options.add_argument("--batches", type=int, nargs="+", help="images in a step: 4 on a CPU, 8 on a GPU")
    options.add_argument("--objects", type=int, nargs="+", default=[8, 100, 500, 1500], help="of an image")
    options.add_argument("--ways", nargs="+", help="only those with these names")
    options.add_argument("--steps", type=int, default=5, help="to measure, after as many to warm up")
    options.add_argument("--predict", action="store_true", help="measure prediction as well")
    options.add_argument("--profile", type=int, default=0, help="operations to list that take the longest")
    options.add_argument(
        "--tune", action="store_true", help="cuDNN tries its algorithms, as in long trainings"
    )
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = options.parse_args()
    logging.disable(logging.INFO)  # mmengine's report on every parameter
    gpu = chosen.device == "cuda"
    torch.backends.cudnn.benchmark = chosen.tune
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for the deterministic way
    if not gpu:
        torch.set_num_threads(1)
    size, batches = chosen.size or (1024 if gpu else 256), chosen.batches or [8 if gpu else 4]
    ways = [way for way in (GPU_WAYS if gpu else CPU_WAYS) if not chosen.ways or way.name in chosen.ways]
    place = torch.cuda.get_device_name() if gpu else "one thread"
    print(f"{machine('torch', 'onedl-mmrotate', 'onedl-mmdetection')}, {place}, {size} px\n", flush=True)
    for variant in chosen.variants:
        rows: list[list[str]] = []
        for images, objects in itertools.product(batches, chosen.objects):
            rows += measured(variant, ways, chosen.device, (images, objects, size), chosen.steps)
        title = [variant, "images", "objects", "ms a step", "images/s", "against", "peak MiB", *PARTS]
        print(table(title, rows) + "\n", flush=True)
        if chosen.predict:
            title = [f"{variant}, prediction", "images", "images/s: layers", "with boxes and NMS"]
            print(table(title, predicted(variant, chosen.device, batches, size)) + "\n", flush=True)
        if chosen.profile:
            batch = batch_of(batches[0], chosen.objects[0], size, 0)
            print(profile(Training(variant, ways[-1], chosen.device), batch, chosen.profile), flush=True)


def predicted(variant: str, device: str, batches: Sequence[int], size: int) -> list[list[str]]:
    """Rows of the table of predictions, with random weights, in single and half precision."""
    model = Training(variant, Way("tiltbox"), device).model.eval()
    rows = []
    for half, images in itertools.product((False, True) if device == "cuda" else (False,), batches):
        data = model.data_preprocessor(batch_of(images, 8, size, 0))
        for sample in data["data_samples"]:
            sample.set_metainfo({"scale_factor": (1.0, 1.0), "ori_shape": (size, size)})
        seconds = []
        with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=half):
            for mode in ("tensor", "predict"):
                model(**data, mode=mode)
                wait(device)
                before = time.perf_counter()
                for _ in range(3):
                    model(**data, mode=mode)
                wait(device)
                seconds.append((time.perf_counter() - before) / 3)
        name = "float16" if half else "float32"
        rows.append([name, str(images), *(f"{images / each:.1f}" for each in seconds)])
    return rows


def profile(training: Training, batch: dict[str, Any], count: int) -> str:
    """The operations of two steps that take the longest, as PyTorch's profiler sees them."""
    for _ in range(ALIKE + 2):
        training.step(batch)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as found:
        for _ in range(2):
            training.step(batch)
        wait("cuda" if torch.cuda.is_available() else "cpu")
    by = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return found.key_averages().table(sort_by=by, row_limit=count, max_name_column_width=60)


def measured(
    variant: str, ways: Sequence[Way], device: str, shape: tuple[int, int, int], steps: int
) -> list[list[str]]:
    """Rows of the table for one kind of batch."""
    images, objects, size = shape
    batches = [batch_of(images, objects, size, seed) for seed in range(3)]
    rows, base = [], None
    for way in ways:
        print(f"{variant}, {images} images with {objects} objects: {way.name}", file=sys.stderr, flush=True)
        forget_peak(device)
        try:
            training = Training(variant, way, device)
            for number in range(max(3, steps)):
                training.step(batches[number % 3], by_part=number >= 2)
            seconds = statistics.median(timed(training, batches[i % 3], device) for i in range(steps))
        except torch.OutOfMemoryError:
            rows.append([way.name, str(images), str(objects), "out of memory", *[""] * (3 + len(PARTS))])
            continue
        training.seconds.clear()
        for number in range(3):
            training.step(batches[number], by_part=True)
        base = base or seconds
        parts = [f"{training.seconds[name] / 3 * 1e3:.1f}" for name in PARTS]
        rows.append(
            [
                way.name,
                *(str(images), str(objects), f"{seconds * 1e3:.1f}", f"{images / seconds:.1f}"),
                *(f"{base / seconds:.2f}×", f"{peak(device):.0f}", *parts),
            ]
        )
        del training
        gc.collect()
    return rows


def batch_of(images: int, objects: int, size: int, seed: int) -> dict[str, Any]:
    """Random pixels with random objects, as the data loader gives them."""
    draw = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(images):
        boxes = torch.rand(objects, 5, generator=draw) * torch.tensor([size, size, 50, 25, 3.1])
        boxes += torch.tensor([0, 0, 12, 8, -1.5])
        sample = DetDataSample(
            metainfo={"img_shape": (size, size), "pad_shape": (size, size), "batch_input_shape": (size, size)}
        )
        labels = torch.randint(len(DOTA_V1_CLASSES), (objects,), generator=draw)
        sample.gt_instances = InstanceData(bboxes=RotatedBoxes(boxes), labels=labels)
        samples.append(sample)
    pixels = torch.randint(256, (images, 3, size, size), dtype=torch.uint8, generator=draw)
    return {"inputs": list(pixels), "data_samples": samples}


def timed(training: Training, batch: dict[str, Any], device: str) -> float:
    """Seconds of a step: of CPU time on a CPU, by the clock on a GPU."""
    clock: Callable[[], float] = time.process_time if device == "cpu" else time.perf_counter
    wait(device)
    before = clock()
    training.step(batch)
    wait(device)
    return clock() - before


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux


def peak(device: str) -> float:
    """MiB of the GPU or of the process since :func:`forget_peak`."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved() / 2**20
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else math.nan


if __name__ == "__main__":
    main()
