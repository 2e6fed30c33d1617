"""Count a variant's parameters and multiply-adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiltbox.defaults import INPUT_SIZE
from tiltbox.errors import SettingsError
from tiltbox.model.variant import Variant
from tiltbox.provenance import Begun, beside
from tiltbox.records import Complexity, write_record


def complexity(
    name: str, variant: Variant, out: Path, *, size: int = INPUT_SIZE, num_classes: int = 15
) -> dict[str, Any]:
    """Write complexity.json: parameters, and multiply-adds at an input of 1 x 3 x size x size.

    Raises:
        SettingsError: ``size`` is not a multiple of 32, the detector's coarsest stride.
    """
    if size <= 0 or size % 32:
        raise SettingsError(
            "--size", f"{size} is not a multiple of 32", "the detector halves its input five times"
        )
    begun = Begun("complexity")
    from tiltbox.model import build_detector
    from tiltbox.model.complexity import count_complexity

    found = count_complexity(build_detector(variant, num_classes=num_classes), size, size)
    counts = Complexity(variant=name, input=(1, 3, size, size), params=found.params, flops=found.flops)
    content = write_record(Path(out), counts)
    settings = {"variant": variant.model_dump(mode="json"), "size": size, "classes": num_classes}
    begun.record(beside(Path(out)), [Path(out)], settings=settings)
    return content
