"""What a training uses of its machine: samples of processor, memory and GPUs, one per line of a file.

MLflow's own monitor stops for good if its server does not answer; only its sensors are used here.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tiltbox.devices.gpus import named_gpus

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

EVERY = 30.0  # seconds
_WANTED = ("cpu_utilization", "system_memory", "gpu_")  # beginnings of the sensors' names


class Usage:
    """Writes samples to a file; a resumed training appends to it."""

    def __init__(self, path: Path) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor

        self._path, self._last = path, 0.0
        self._sensors: list[BaseMetricsMonitor] = [CPUMonitor()]
        with suppress(Exception):  # no GPU, or no way to query it
            self._sensors.append(_gpu_sensor())

    def sample(self) -> None:
        """Append a sample of current usage, unless the last one was a moment ago."""
        if time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        values = {"time": round(1000 * time.time())}
        for sensor in self._sensors:
            sensor.collect_metrics()
            found = sensor.aggregate_metrics()
            values |= {f"system/{key}": found[key] for key in sorted(found) if key.startswith(_WANTED)}
            sensor.clear_metrics()
        with self._path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def _gpu_sensor() -> GPUMonitor:
    """A sensor of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES, numbered from 0."""
    import pynvml
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    sensor = GPUMonitor()
    if (named := named_gpus()) is not None:
        by_number, by_name = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
        sensor.gpu_handles = [by_number(int(name)) if name.isdigit() else by_name(name) for name in named]
    return sensor


def read_samples(path: Path) -> list[dict[str, float]]:
    """All complete samples: a process may have been killed while it wrote one."""
    samples = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):
            samples.append(json.loads(line))
    return samples
