"""What the workflow runs: ``configs/config.yaml`` with ``--config`` on top, checked before the DAG exists."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tiltbox import layout
from tiltbox.configs import CONFIGS, Settings, fingerprint, known_name, validated
from tiltbox.devices.gpus import gpus_here
from tiltbox.errors import SettingsError, TiltboxError
from tiltbox.model.variant import Variant
from tiltbox.model.variants import load_variants
from tiltbox.provenance import beside, located, read_provenance
from tiltbox.settings import dependencies
from tiltbox.settings.auto import AUTO, before_the_data, candidates, fitting_gpus
from tiltbox.settings.datasets import Dataset, find_dataset
from tiltbox.settings.schedules import Schedule, find_schedule, gpus_to_use, starting_weights


def _one_or_more(names: Any) -> Any:
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else names


def _whole_numbers(value: Any) -> Any:
    """The values of a number, a list of numbers, or a text such as ``0,1,2``."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int) else value


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("contains a seed twice; remove one")
    return seeds


class Workflow(Settings):
    """The keys of ``configs/config.yaml``."""

    dataset: str = Field(description="a name in configs/datasets or the path of such a file")
    variants: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = Field(
        min_length=1,
        description="rows of configs/variants.yaml; a text is split at its commas",
    )
    schedule: str = Field(
        "auto",
        description="a name in configs/schedules or a path; auto: the dataset's, or what fits the data",
    )
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...],
        BeforeValidator(_whole_numbers),
        AfterValidator(_different),
    ] = Field((0,), min_length=1, description="one training for each; a text is split at its commas")
    gpus: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="per training; auto: as the schedule says, or 0 on a machine without any"
    )
    track: bool = Field(True, description="whether to log to MLflow")


@dataclass(frozen=True)
class Plan:
    """The workflow's settings with every name looked up.

    Attributes:
        schedule: The schedule; if its name is ``auto``, what is known of it before there are data.
    """

    workflow: Workflow
    dataset: Dataset
    schedule: Schedule
    schedule_name: str
    variants: dict[str, Variant]
    gpus: int  # per training

    @property
    def train_patches(self) -> Path:
        return layout.patches(self.dataset.name, self.dataset.train_splits)

    @property
    def test_patches(self) -> Path:
        return layout.patches(self.dataset.name, [self.dataset.test_split])

    @property
    def test_rule(self) -> str:
        """The rule that cuts the test patches; if they are also the training patches, they are cut once."""
        return "split_train" if self.test_patches == self.train_patches else "split_test"

    @property
    def validates(self) -> bool:
        """Whether trainings score themselves on the test patches while they run."""
        wanted = [each.validation for each in self._schedules.values() if each.max_steps is None]
        return self.dataset.test_labelled and any(each.every and not each.share for each in wanted)

    @property
    def runs(self) -> list[str]:
        """The trainings: of every variant with every seed, seed by seed."""
        return [layout.run(name, seed) for seed in self.workflow.seeds for name in self.variants]

    def runs_of(self, name: str) -> list[str]:
        """The trainings of one variant."""
        return [layout.run(name, seed) for seed in self.workflow.seeds]

    @property
    def remarks(self) -> list[str]:
        """Remarks on settings that are allowed but may be unintended, one line each."""
        remarks = []
        if self.dataset.test_split in self.dataset.train_splits:
            remarks.append(
                f"dataset {self.dataset.name} tests on '{self.dataset.test_split}', which it trains on:"
                " its scores measure memorisation"
            )
        if self.schedule.seed and self.schedule.seed not in self.workflow.seeds:
            unused = f"seed {self.schedule.seed} of schedule {self.schedule_name}"
            remarks.append(f"{unused} is not used; `seeds` sets the seeds")
        if self.workflow.gpus == "auto" and self.gpus == 0:
            remarks.append(f"no GPU found: training on the CPU, with schedule {self.schedule_name}")
        if self.schedule_name == AUTO:
            log = layout.LOGS / self.dataset.name / "VARIANT" / "train.log"
            return [*remarks, f"schedule auto: one is chosen when there are patches; {log} will name it"]
        size, seen = self.dataset.patch.size, self.schedule.image_size
        if size != seen:
            remarks.append(
                f"patches of {size} px (patch.size of dataset {self.dataset.name}) are resized to"
                f" {seen} px (image_size of schedule {self.schedule_name})"
            )
        return remarks

    def detector(self, name: str) -> str:
        """A hash of what defines the detector of a variant and its classes, apart from its weights."""
        return dependencies.detector(self.variants[name], self.dataset.classes)

    @property
    def needs_weights(self) -> bool:
        """Whether trainings start from weights or, with ``auto``, may do so if there are many data."""
        return any(schedule.pretrained for schedule in self._schedules.values())

    @property
    def _schedules(self) -> dict[str, Schedule]:
        """The schedules that trainings may follow, by name."""
        return candidates(self.gpus) if self.schedule_name == AUTO else {self.schedule_name: self.schedule}

    def starting_weights(self, name: str) -> str | None:
        """The address of the weights that a training of the variant may start from; None for random ones."""
        return _first_weights(self._schedules, self.variants[name])

    def depends_on(self, name: str, seed: int = 0) -> str:
        """A hash of everything that can change the final weights of a training of the variant.

        These are the settings of :func:`tiltbox.settings.dependencies.training`. GPUs count only by their
        number, that is, of processes, and only if it is set: what ``auto`` finds belongs to a machine, and
        results are valid on others, too.
        """
        variant = self.variants[name]
        possible = _anywhere() if self.schedule_name == AUTO else self._schedules
        schedules = [schedule.model_copy(update={"seed": seed}) for schedule in possible.values()]
        if self.workflow.gpus != "auto":
            schedules = [each.on(self.gpus or 1, cuda=self.gpus > 0) for each in schedules]
        start = _first_weights(possible, variant)
        found = dependencies.training(variant, self.dataset.classes, schedules, start)
        if self.schedule_name == AUTO:
            found.append({"schedule": AUTO})
        return fingerprint(*found, self.dataset.patch)


def _first_weights(schedules: Mapping[str, Schedule], variant: Variant) -> str | None:
    found = (starting_weights(schedule, variant) for schedule in schedules.values())
    return next(filter(None, found), None)


def _anywhere() -> dict[str, Schedule]:
    """The schedules that ``auto`` may choose on any machine."""
    return {name: schedule for gpus in range(3) for name, schedule in candidates(gpus).items()}


def resolve(
    config: dict[str, Any],
    where: str = str(CONFIGS / "config.yaml"),
    *,
    overridden: Collection[str] = (),
    gpus: int | None = None,
) -> Plan:
    """Look up everything that the configuration names.

    Args:
        where: The file that the configuration comes from, for errors.
        overridden: Keys that were given with ``--config`` instead.
        gpus: GPUs that trainings may use; by default those of this machine.

    Raises:
        SettingsError: A key or name is unknown, two settings contradict each other, the dataset's folder
            does not exist, or there are too few GPUs.
    """
    workflow = _checked(config, where, overridden)
    rows = load_variants().variants
    place = f"{_origin('variants', where, overridden)}: variants"
    names = [known_name(name, rows, place, "variant") for name in workflow.variants]
    dataset = find_dataset(workflow.dataset)
    _require_folder(dataset)
    _require_only_one(dataset, workflow.dataset)
    schedule_name = dataset.schedule if workflow.schedule == AUTO else workflow.schedule
    here = gpus_here() if gpus is None else gpus
    asked = None if workflow.gpus == "auto" else workflow.gpus
    likely = fitting_gpus(0, here) if asked is None else asked
    schedule = before_the_data(likely) if schedule_name == AUTO else find_schedule(schedule_name)
    used = gpus_to_use(schedule, asked, here, option="gpus=", name=schedule_name)
    return Plan(workflow, dataset, schedule, schedule_name, {name: rows[name] for name in names}, used)


def _checked(config: dict[str, Any], where: str, overridden: Collection[str]) -> Workflow:
    try:
        return validated(Workflow, config, where)
    except SettingsError as error:
        key = error.where.removeprefix(f"{where}: ")
        origin = _origin(key.partition(".")[0], where, overridden)
        raise SettingsError(error.where.replace(where, origin, 1), error.problem, error.remedy) from None


def _origin(key: str, where: str, overridden: Collection[str]) -> str:
    return "--config" if key in overridden else where


def _require_only_one(dataset: Dataset, name_or_file: str) -> None:
    """Refuse a second dataset file with the same name: its data and results would replace the first."""
    place = beside(layout.raw(dataset.name))
    if not (name_or_file.endswith((".yaml", ".yml")) and place.is_file()):
        return
    try:
        known = read_provenance(place).settings.get("file")
        other = located(place, known) if isinstance(known, str) else None
        if other is None or not other.is_file() or other.samefile(name_or_file):
            return
        again = find_dataset(str(other)).name == dataset.name
    except TiltboxError:  # a damaged record or dataset file does not matter here
        return
    if again:
        first = os.path.relpath(other)
        problem = f"'{dataset.name}' is also the name of {first}, whose data and results would be replaced"
        raise SettingsError(f"{name_or_file}: name", problem, "give one of the two another name")


def _require_folder(dataset: Dataset) -> None:
    folder = dataset.source.folder
    if folder is not None and not folder.is_dir():
        where = f"dataset {dataset.name}: source.folder"
        raise SettingsError(where, f"folder not found: {folder}", "correct it in the dataset file")
