"""Whether the results of a job of the workflow still are what they would become, by the record beside them.

Snakemake goes by times, which change as files are copied, linked and checked out, and by notes of its own,
which stay on the machine. The records of :mod:`tiltbox.provenance` travel with the results. They say what a
job was asked to do (its key) and what was in the files that it read: results are right while both are the
same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tiltbox import layout
from tiltbox.errors import DataError
from tiltbox.files import write_json
from tiltbox.provenance import SUFFIX, Provenance, beside, file_hash, located, matching, read_provenance
from tiltbox.settings.base import CONFIGS, fingerprint, read_yaml
from tiltbox.settings.workflow import Plan

LARGE = 1 << 20  # bytes from which on the hash of a file is kept for the next time
KEPT_HASHES = Path(".snakemake/tiltbox-hashes.json")

Job = tuple[str, str]  # a rule, and the run or variant that it is for, or ""


class Freshness:
    """What has to be done again, and why.

    Args:
        forced: Rules, or files that they make, which are to be made again whatever the records say.
        everything: Whether all are.
    """

    def __init__(self, plan: Plan, forced: Iterable[str] = (), *, everything: bool = False) -> None:
        self._plan, self._forced, self._everything = plan, set(forced), everything
        self._contents = _Contents(KEPT_HASHES)
        self.key, self.reason = cache(self._key), cache(self._reason)
        self._record, self._change = cache(self._read_record), cache(self._find_change)

    def keep_hashes(self) -> None:
        """Spares the next one from reading the large files."""
        self._contents.keep()

    def _reason(self, rule: str, run: str = "") -> str | None:
        """Why a job has to be done again; None where its results are right."""
        record = self._record(rule, run)
        if record is None:
            return "there are no results with a record yet"
        gone = [path for path in _files(self._place(rule, run), record.outputs) if not path.exists()]
        if rule == "download":  # images of one's own, which are somewhere else now
            gone += [path for path in layout.raw(self._plan.dataset.name).glob("*/*") if not path.exists()]
        return f"{_shown(gone[0])} is gone" if gone else self._change(rule, run)

    def _find_change(self, rule: str, run: str) -> str | None:
        """What is no longer as it was when the job was done; None, too, where nothing of it is here."""
        record = self._record(rule, run)
        if record is None:
            return None
        if self._is_forced(rule, run, record):
            return "it was asked for"
        if record.job != self.key(rule, run):
            return "its settings are others now, or those of a job before it"
        for before in self._before(rule, run):
            if self._change(*before):
                return f"{' '.join(filter(None, before))} has to be done again"
        return None if rule.startswith("split") else self._changed_input(rule, run, record)

    def _changed_input(self, rule: str, run: str, record: Provenance) -> str | None:
        """What is not here is no change. (That images did not change, ``Dataset.contents`` says.)"""
        place = self._place(rule, run)
        known = _files(place, record.inputs)
        for path, expected in known.items():
            if path.is_file() and self._contents.hash(path) != expected:
                return f"{_shown(path)} has changed"
        for folder in record.folders:
            for path in matching(located(place, folder.path), folder.pattern):
                if located(place, path.absolute()) not in known:
                    return f"{_shown(path)} is new"
        return None

    def _is_forced(self, rule: str, run: str, record: Provenance) -> bool:
        made = {_shown(path) for path in _files(self._place(rule, run), record.outputs)}
        return self._everything or rule in self._forced or not made.isdisjoint(self._forced)

    def _read_record(self, rule: str, run: str) -> Provenance | None:
        try:
            return read_provenance(self._place(rule, run))
        except DataError:
            return None

    def _place(self, rule: str, run: str) -> Path:
        """Where the stages leave their records."""
        name = self._plan.dataset.name
        places = {
            "download": lambda: beside(layout.raw(name)),
            "split_train": lambda: beside(self._plan.train_patches),
            "split_test": lambda: beside(self._plan.test_patches),
            "train": lambda: layout.checkpoint(name, run).with_name(SUFFIX),
            "predict": lambda: beside(layout.detections(name, run)),
            "merge": lambda: beside(layout.task1(name, run)),
            "evaluate": lambda: beside(layout.metrics(name, run)),
            "complexity": lambda: beside(layout.complexity(name, run)),
            "report": lambda: layout.RESULTS / name / f"leaderboard.{SUFFIX}",
        }
        return places[rule]()

    def _before(self, rule: str, run: str) -> list[Job]:
        """The jobs whose results one reads; what a download was asked for, a split is asked for, too."""
        plan = self._plan
        last = "evaluate" if plan.dataset.test_labelled else "merge"
        return {
            "train": [("split_train", "")],
            "predict": [("train", run), (plan.test_rule, "")],
            "merge": [("predict", run)],
            "evaluate": [("merge", run)],
            "report": [
                *((last, each) for each in plan.runs),
                *(("complexity", name) for name in plan.variants),
            ],
        }.get(rule, [])

    def _key(self, rule: str, run: str = "") -> str:
        """A hash of all the settings that the results depend on, its own and those of the jobs before it."""
        return fingerprint(
            self._own(rule, run), *({"before": self.key(*job)} for job in self._before(rule, run))
        )

    def _own(self, rule: str, run: str) -> dict:
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
                return {"image_size": plan.schedule.image_size, **_classes(settings)}
            case "merge":
                return _classes(settings)
            case "evaluate":
                return {"split": dataset.test_split, **_classes(settings)}
            case "complexity":
                return {"detector": plan.detector(run)}
            case "report":
                return {"published": fingerprint({"published": read_yaml(CONFIGS / "published.yaml")})}


class _Contents:
    """Hashes of files. Those of large ones are kept, by place, size and times, which an edit changes."""

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


def _classes(settings: dict) -> dict:
    return {"classes": settings["classes"]}


def _files(place: Path, entries: dict[str, str]) -> dict[Path, str]:
    """Addresses apart."""
    return {located(place, name): found for name, found in entries.items() if "://" not in name}


def _shown(path: Path) -> str:
    """As seen from the current folder."""
    return os.path.relpath(path)
