"""A copy of what makes the workflow, and a tiny dataset to run it on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tiltbox.dota.classes import DOTA_V1_CLASSES

ROOT = Path(__file__).resolve().parents[1]
TINY = f"""\
name: tiny
source: {{render: {{size: 128, images: {{train: 4, val: 1, test: 1}}}}}}
train_splits: [train]
test_split: val
classes: [{", ".join(DOTA_V1_CLASSES)}]
patch: {{size: 128, overlap: 24}}
schedule: smoke
"""
# No test fails because a machine is slow.
settings.register_profile("tiltbox", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tiltbox")

LONGEST = ("workflow", "test_train.py", "test_parallel.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that no core is left alone with one at the end."""
    items.sort(key=lambda item: not any(name in item.path.parts for name in LONGEST))


@pytest.fixture(scope="session")
def copy_project() -> Callable[[Path], Path]:
    """Copies into a folder what is named here, one by one: there need be no git, and no results come."""

    def copy(folder: Path) -> Path:
        for name in ("configs", "profiles", "workflow"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("Snakefile", "dvc.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(ROOT / name, folder)
        (folder / "configs/datasets/tiny.yaml").write_text(TINY)
        return folder

    return copy
