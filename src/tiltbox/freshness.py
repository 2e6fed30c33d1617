"""Decides from the records beside the results which jobs of the workflow must run again.

Snakemake goes by times, which change when files are copied, linked or checked out, and by its own notes,
which stay on the machine. The records of :mod:`tiltbox.provenance` travel with the results. They say what a
job was asked to do (its key) and what the files that it read contained. Results are valid as long as both are
unchanged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tiltbox import layout
from tiltbox.configs import CONFIGS, fingerprint, read_yaml
from tiltbox.errors import DataError
from tiltbox.files.atomic import write_json
from tiltbox.provenance import SUFFIX, Provenance, beside, file_hash, located, matching, read_provenance
from tiltbox.settings.auto import AUTO
from tiltbox.settings.workflow import Plan

LARGE = 1 << 20  # bytes; the hashes of files at least this large are kept for the next run
KEPT_HASHES = Path(".snakemake/tiltbox-hashes.json")
DATA = ("download", "split_train", "split_test")  # rules that make no results, only the data for them

Job = tuple[str, str]  # a rule, and the run or variant that it is for, or ""


class Freshness:
    """What has to be done again, and why.

    Args:
        targets: Rules and files that were asked for.
        forced: Rules to run again, and files to make again, whatever the records say.
    """

    def __init__(self, plan: Plan, targets: Iterable[str] = (), forced: Iterable[str] = ()) -> None:
        self._plan, self._targets, self._forced = plan, set(targets), set(forced)
        self._contents = _Contents(KEPT_HASHES)
        self.key, self.change = cache(self._key), cache(self._find_change)
        self.is_missed, self._readers = cache(self._find_missed), cache(self._find_readers)
        self._record, self._other_data = cache(self._read_record), cache(self._find_other_data)

    def keep_hashes(self) -> None:
        """Save the hashes of large files, so that the next run need not read them."""
        self._contents.keep()

    def is_here(self, rule: str, run: str = "") -> bool:
        """Whether everything that a job made still exists."""
        record = self._record(rule, run)
        return record is not None and all(
            path.exists() for path in _files(self._place(rule, run), record.outputs)
        )

    def is_of_other_settings(self, path: Path) -> bool:
        """Whether a path belongs to data that were made for other settings, for example on another branch.

        Such data count as missing. Results that were made from the right data have these settings in their
        own key.
        """
        return any(map(path.absolute().is_relative_to, self._other_data()))

    def only_expectations_differ(self) -> bool:
        """Whether the right images are here, but were not checked against what is now expected of them."""
        patches = [each for each in DATA if each != "download" and self._record(each, "") is not None]
        others = any(self._made_otherwise(each, "") for each in patches)
        return bool(patches) and not others and self._made_otherwise("download", "")

    def _find_change(self, rule: str, run: str = "") -> str | None:
        """Why a job must run again; None if nothing that it depends on has changed.

        Missing results or inputs do not count as a change: this clone may not need them. Missing scores do
        count for the report, since every run makes them.
        """
        record = self._record(rule, run)
        if self._is_forced(rule, run):
            return "it was asked for"
        if record is None:
            return "its record is missing or damaged" if self._main_output(rule, run).exists() else None
        if record.job != self.key(rule, run):
            return "its settings have changed, or those of a job before it"
        for before in self._before(rule, run):
            if self._change_that_counts(*before):
                return f"{' '.join(filter(None, before))} must run again"
        match rule:
            case "download":
                return (
                    "the folder of images in its settings has changed or was moved"
                    if self._linked_elsewhere()
                    else None
                )
            case "split_train" | "split_test":
                return None  # its key says that the images are unchanged
            case "train" if (self._place(rule, run).parent / "work").exists():
                return "it was restarted and did not finish"
            case "report":
                for scored in self._scored():
                    if not self._main_output(*scored).exists():
                        return f"{' '.join(scored)} must run again"
        return self._changed_input(rule, run, record)

    def _change_that_counts(self, rule: str, run: str) -> bool:
        return not self._made_otherwise(rule, run) and self.change(rule, run) is not None

    def _find_other_data(self) -> list[Path]:
        return [self._folder(rule).absolute() for rule in DATA if self._made_otherwise(rule, "")]

    def _made_otherwise(self, rule: str, run: str) -> bool:
        record = self._record(rule, run) if rule in DATA else None
        return record is not None and record.job != self.key(rule, run) and not self._is_forced(rule, run)

    def _changed_input(self, rule: str, run: str, record: Provenance) -> str | None:
        place = self._place(rule, run)
        known = _files(place, record.inputs)
        for path, expected in known.items():
            if self.is_of_other_settings(path) or not path.is_file():
                continue
            if self._contents.hash(path) != expected:
                return f"{_shown(path)} has changed"
        for read in record.folders:
            folder = located(place, read.path)
            found = () if self.is_of_other_settings(folder) else matching(folder, read.pattern)
            for path in found:
                if located(place, path.absolute()) not in known:
                    return f"{_shown(path)} is new"
        return None

    def _linked_elsewhere(self) -> bool:
        """Whether a link to the user's images is broken, or differs from the folder in the settings."""
        dataset = self._plan.dataset
        if dataset.source.folder is None:
            return False
        links = {link for link in layout.raw(dataset.name).glob("*/*") if link.is_symlink()}
        wanted = {(dataset.source.folder / folder).resolve() for folder in dataset.folders()}
        return any(not link.exists() or link.resolve() not in wanted for link in links)

    def _is_forced(self, rule: str, run: str) -> bool:
        return rule in self._forced or bool(self._made_of(self._forced, rule, run))

    def _made_of(self, files: set[str], rule: str, run: str) -> set[str]:
        """Those of the files that a job makes: they are in its record, or beside its main output."""
        record, main = self._record(rule, run), self._main_output(rule, run)
        made = {_shown(path) for path in _files(self._place(rule, run), record.outputs)} if record else set()
        return {each for each in files if each in made or Path(each).parent == main.parent}

    def _read_record(self, rule: str, run: str) -> Provenance | None:
        try:
            return read_provenance(self._place(rule, run))
        except DataError:
            return None

    def _folder(self, rule: str) -> Path:
        """The output folder of a job of ``DATA``."""
        plan = self._plan
        folders = {"split_train": plan.train_patches, "split_test": plan.test_patches}
        return folders.get(rule, layout.raw(plan.dataset.name))

    def _main_output(self, rule: str, run: str) -> Path:
        """The output without which a job counts as not done."""
        name = self._plan.dataset.name
        match rule:
            case "train":
                return layout.checkpoint(name, run)
            case "predict":
                return layout.detections(name, run)
            case "merge":
                return layout.task1(name, run) / "Task1.zip"
            case "evaluate":
                return layout.metrics(name, run)
            case "complexity":
                return layout.complexity(name, run)
            case "report":
                return layout.leaderboard(name, "html")
        return self._folder(rule) / "manifest.json"

    def _place(self, rule: str, run: str) -> Path:
        """The path of the record that a stage leaves."""
        name = self._plan.dataset.name
        places = {
            **{each: lambda: beside(self._folder(rule)) for each in DATA},
            "train": lambda: layout.checkpoint(name, run).with_name(SUFFIX),
            "predict": lambda: beside(layout.detections(name, run)),
            "merge": lambda: beside(layout.task1(name, run)),
            "evaluate": lambda: beside(layout.metrics(name, run)),
            "complexity": lambda: beside(layout.complexity(name, run)),
            "report": lambda: layout.RESULTS / name / f"leaderboard.{SUFFIX}",
        }
        return places[rule]()

    def _before(self, rule: str, run: str) -> list[Job]:
        """The jobs whose results a job reads; for splits none, since their key covers the download."""
        return {
            "train": [("split_train", "")],
            "predict": [("train", run), (self._plan.test_rule, "")],
            "merge": [("predict", run)],
            "evaluate": [("merge", run)],
            "report": [*self._scored(), *(("complexity", name) for name in self._plan.variants)],
        }.get(rule, [])

    def _read_by(self, rule: str, run: str) -> list[Job]:
        """All jobs that a job reads something of."""
        plan = self._plan
        match rule:
            case "split_train" | "split_test":
                return [("download", "")]
            case "train" if plan.validates:
                return [*self._before(rule, run), (plan.test_rule, "")]
            case "evaluate":
                return [*self._before(rule, run), ("download", "")]
            case "report":
                return [*self._before(rule, run), *(("train", each) for each in plan.runs)]
        return self._before(rule, run)

    def _files_read(self, rule: str, run: str, by: str) -> set[Path]:
        """The results of a job that a rule reads."""
        match rule, by:
            case "train", "report":
                return {layout.training_facts(self._plan.dataset.name, run)}
            case "merge", "evaluate":
                folder = layout.task1(self._plan.dataset.name, run)
                return {folder / f"Task1_{name}.txt" for name in self._plan.dataset.classes}
        return {self._main_output(rule, run)}

    def _find_readers(self) -> dict[Job, list[Job]]:
        """For each job, those that read something of it."""
        plan = self._plan
        stages = ("train", "predict", "merge", *(["evaluate"] if plan.dataset.test_labelled else []))
        jobs = [("split_train", ""), (plan.test_rule, ""), ("report", "")]
        jobs += [(stage, run) for stage in stages for run in plan.runs]
        readers: dict[Job, list[Job]] = {}
        for job in dict.fromkeys(jobs):
            for read in self._read_by(*job):
                readers.setdefault(read, []).append(job)
        return readers

    def _find_missed(self, rule: str, run: str = "") -> bool:
        """Whether results are missing that were asked for, or that a job reads which has to run."""
        readers = self._readers().get((rule, run), [])
        if not readers or rule in self._targets:
            return not self.is_here(rule, run)
        if not all(Path(each).exists() for each in self._made_of(self._targets, rule, run)):
            return True
        return any(
            not all(path.exists() for path in self._files_read(rule, run, by=reader[0]))
            and (self.change(*reader) is not None or self.is_missed(*reader))
            for reader in readers
        )

    def _scored(self) -> list[Job]:
        """The final result of each training: scores or, without labels, the file to submit."""
        last = "evaluate" if self._plan.dataset.test_labelled else "merge"
        return [(last, run) for run in self._plan.runs]

    def _key(self, rule: str, run: str = "") -> str:
        """A hash of all settings that the results depend on, including those of the jobs before."""
        return fingerprint(
            self._own(rule, run), *({"before": self.key(*job)} for job in self._before(rule, run))
        )

    def _own(self, rule: str, run: str) -> dict[str, Any]:
        """The settings that a job itself depends on."""
        plan = self._plan
        dataset = plan.dataset
        settings = dataset.model_dump(mode="json")
        source = {key: settings["source"][key] for key in ("render", "archives")} | {
            "splits": settings["splits"]
        }
        match rule:
            case "download":
                return source | {
                    "expected": settings["expected"],
                    "linked": dataset.folders(),
                    **_classes(settings),
                }
            case "split_train" | "split_test":
                splits = dataset.train_splits if rule == "split_train" else (dataset.test_split,)
                contents = {"names": splits, "contents": dataset.contents(splits)}
                return source | contents | {"patch": settings["patch"], **_classes(settings)}
            case "train":
                return {"settings": plan.depends_on(*layout.variant_and_seed(run))}
            case "predict":
                chosen = plan.schedule_name == AUTO  # by the data, which the key covers as well
                return {"image_size": AUTO if chosen else plan.schedule.image_size, **_classes(settings)}
            case "merge":
                return _classes(settings)
            case "evaluate":
                return {"split": dataset.test_split, **_classes(settings)}
            case "complexity":
                return {"detector": plan.detector(run)}
            case "report":
                return {"published": fingerprint({"published": read_yaml(CONFIGS / "published.yaml")})}
        raise ValueError(f"Expected a rule with results, but got {rule}")


class _Contents:
    """Hashes of files. Those of large files are kept by path, size and times, which an edit changes."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._found: dict[str, str] = {}
        try:
            self._kept = json.loads(place.read_bytes())
        except (OSError, ValueError):
            self._kept = {}

    def hash(self, path: Path) -> str:
        state = path.stat()
        label = f"{path} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"
        if label not in self._found:
            self._found[label] = self._kept.get(label) or file_hash(path)
        return self._found[label]

    def keep(self) -> None:
        large = {
            label: found for label, found in self._found.items() if int(label.rsplit(" ", 4)[1]) >= LARGE
        }
        if large.items() - self._kept.items():
            self._place.parent.mkdir(exist_ok=True)
            write_json(self._place, large)


def _classes(settings: dict[str, Any]) -> dict[str, Any]:
    return {"classes": settings["classes"]}


def _files(place: Path, entries: dict[str, str]) -> dict[Path, str]:
    """The files of a record, without addresses."""
    return {located(place, name): found for name, found in entries.items() if "://" not in name}


def _shown(path: Path) -> str:
    """The path as seen from the current folder."""
    return os.path.relpath(path)
