"""An Ultralytics detector, trained and run: started by :mod:`peer` with an interpreter that has the package.

Nothing of tiltbox is imported here, and nothing of Ultralytics anywhere else.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("model", help="as yolov8n-obb.yaml")
    options.add_argument("data", type=Path, help="data.yaml")
    options.add_argument("out", type=Path, help="folder for cpu.json and val/predictions.json")
    options.add_argument("--size", type=int, required=True)
    options.add_argument("--epochs", type=int, required=True)
    options.add_argument("--fraction", type=float, default=1.0, help="share of the images to train on")
    options.add_argument("--predict", action="store_true", help="on val, when it is trained")
    chosen = options.parse_args()
    chosen.out = chosen.out.resolve()  # a relative path would be inside its own folder of runs
    marks = _train(chosen)
    (chosen.out / "cpu.json").write_text(json.dumps(marks))
    if chosen.predict:
        _predict(chosen)


def _train(chosen: argparse.Namespace) -> list[list[float]]:
    """CPU seconds since the process began, at the start and at the end of each epoch."""
    import torch
    from ultralytics import YOLO

    starts, ends = [], []
    model = YOLO(chosen.model)
    model.add_callback("on_train_start", lambda trainer: torch.set_num_threads(1))  # it sets more itself
    model.add_callback("on_train_epoch_start", lambda trainer: starts.append(_cpu()))
    model.add_callback("on_train_epoch_end", lambda trainer: ends.append(_cpu()))
    model.train(
        epochs=chosen.epochs,
        fraction=chosen.fraction,
        pretrained=False,
        val=False,
        **_common(chosen, "train"),
    )
    return [list(pair) for pair in zip(starts, ends, strict=True)]


def _predict(chosen: argparse.Namespace) -> None:
    from ultralytics import YOLO

    YOLO(chosen.out / "train/weights/last.pt").val(save_json=True, **_common(chosen, "val"))
    found = chosen.out / "val/predictions.json"
    if not found.exists():  # it is not written if nothing was found
        found.write_text("[]")


def _common(chosen: argparse.Namespace, name: str) -> dict:
    places = {"project": str(chosen.out), "name": name, "exist_ok": True, "plots": False}
    return {"data": str(chosen.data), "imgsz": chosen.size, "device": "cpu", "workers": 0, **places}


def _cpu() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
