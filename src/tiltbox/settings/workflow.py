"""What the workflow runs: ``configs/config.yaml`` with ``--config`` on top, checked before the DAG exists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tiltbox import layout
from tiltbox.settings.base import CONFIGS, Settings, fingerprint, known_name, validated
from tiltbox.settings.datasets import Dataset, find_dataset
from tiltbox.settings.schedules import Schedule, find_schedule
from tiltbox.settings.variants import Variant, load_variants


class Workflow(Settings):
    """The keys of ``configs/config.yaml``."""

    dataset: str = Field(description="a name in configs/datasets or the path of such a file")
    variants: tuple[str, ...] = Field(min_length=1, description="rows of configs/variants.yaml")
    schedule: str = Field("auto", description="a name in configs/schedules or a path; auto: the dataset's")
    gpus: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="per training; auto: as the schedule says where there are as many, else none"
    )
    track: bool = Field(True, description="whether to log to MLflow")


@dataclass(frozen=True)
class Plan:
    """The workflow's settings with every name looked up."""

    workflow: Workflow
    dataset: Dataset
    schedule: Schedule
    schedule_name: str
    variants: dict[str, Variant]

    @property
    def gpus(self) -> int:
        """GPUs per training."""
        if self.workflow.gpus != "auto":
            return self.workflow.gpus
        return self.schedule.processes if gpus_here() >= self.schedule.processes else 0

    @property
    def train_patches(self) -> Path:
        return layout.patches(self.dataset.name, self.dataset.train_splits)

    @property
    def test_patches(self) -> Path:
        return layout.patches(self.dataset.name, [self.dataset.test_split])

    def depends_on(self, name: str) -> str:
        """A hash of all settings that the training of a variant depends on."""
        others = {"gpus": self.gpus, "classes": self.dataset.classes}
        return fingerprint(self.variants[name], self.schedule, self.dataset.patch, others)


def gpus_here() -> int:
    """GPUs of this machine, from its device files: asking torch would cost seconds per dry run."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def resolve(config: dict[str, Any], where: str = str(CONFIGS / "config.yaml")) -> Plan:
    """Look everything up that the configuration names.

    Raises:
        SettingsError: A key or name is unknown, or two settings contradict each other.
    """
    workflow = validated(Workflow, config, where)
    rows = load_variants().variants
    names = [known_name(name, rows, f"{where}: variants", "variant") for name in workflow.variants]
    dataset = find_dataset(workflow.dataset)
    schedule_name = dataset.schedule if workflow.schedule == "auto" else workflow.schedule
    schedule = find_schedule(schedule_name)
    return Plan(workflow, dataset, schedule, schedule_name, {name: rows[name] for name in names})
