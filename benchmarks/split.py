"""Cutting patches against mmrotate's splitter, on all cores: ``python benchmarks/split.py``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import cv2
import numpy as np
from measure import Contender, compared, comparison, machine, table

from tiltbox.dota.images.pixels import read_image, write_png
from tiltbox.dota.labels import Labels, write_labels

SIDE = 4000
OBJECTS = 300  # of an image
SCRIPT = "mmrotate/.mim/tools/data/dota/split/img_split.py"  # installed with mmrotate


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=16, help="how many of 4000 x 4000 pixels")
    options.add_argument("--photos", type=Path, help="make the images of those in this folder, not of noise")
    options.add_argument("--rates", nargs="+", default=["1.0"], help="scales to cut at")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    print(machine("onedl-mmrotate", "opencv-python-headless", "isal") + "\n")
    photos = sorted(chosen.photos.rglob("*.png")) if chosen.photos else ()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(chosen.images):
            add_image(folder / "train", number, photos)
        costs = compared(contenders(folder, chosen.rates), chosen.rounds)
        print(f"{chosen.images} images of {SIDE}², rates {' '.join(chosen.rates)}\n")
        print(comparison(costs, "mmrotate"))
        print("\n" + outputs(folder))


def add_image(folder: Path, number: int, photos: Sequence[Path] = (), side: int = SIDE) -> None:
    """An image and its labels: one of the photos, mirrored repeatedly until it is large enough, or noise."""
    rng = np.random.default_rng(number)
    if photos:
        photo = read_image(photos[number % len(photos)])
        height, width, _ = photo.shape
        image = cv2.copyMakeBorder(
            photo, 0, max(0, side - height), 0, max(0, side - width), cv2.BORDER_REFLECT
        )
        image = image[:side, :side]
    else:
        image = _noise(rng, side)
    for part in ("images", "labelTxt"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_png(folder / "images" / f"P{number:04d}.png", image)
    corners = rng.uniform(0, side - 60, (OBJECTS, 1, 2)) + np.array([[0, 0], [50, 9], [46, 29], [-4, 20]])
    labels = Labels(corners.reshape(-1, 8).round(), ("ship",) * OBJECTS, np.zeros(OBJECTS, int))
    write_labels(folder / "labelTxt" / f"P{number:04d}.txt", labels)


def _noise(rng: np.random.Generator, side: int) -> np.ndarray:
    """About as rough as aerial images: noise on every scale, half as strong on the next finer one."""
    image = np.full((side, side, 3), 110, np.float32)
    for step, strength in ((256, 40), (64, 22), (16, 14), (4, 9), (2, 5), (1, 2.2)):
        cells = -(-side // step)
        # Mostly the same in all colours, like shades.
        noise = rng.normal(0, strength, (cells, cells, 1)) + rng.normal(0, strength / 4, (cells, cells, 3))
        image += cv2.resize(noise.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def contenders(folder: Path, rates: list[str]) -> dict[str, Contender]:
    python, tiltbox = sys.executable, Path(sys.executable).with_name("tiltbox")
    source = folder / "train"
    mmrotate = [
        *[python, "-W", "ignore", "-c", RUN_AFRESH, distribution("onedl-mmrotate").locate_file(SCRIPT)],
        *["--img-dirs", source / "images", "--ann-dirs", source / "labelTxt", "--sizes", 1024, "--gaps", 200],
        *["--rates", *rates, "--nproc", os.cpu_count(), "--save-dir", folder / "mmrotate"],
    ]
    ours = [tiltbox, "split", source, "--out", folder / "tiltbox", "--rates", *rates]
    return {"mmrotate": Contender(mmrotate), "tiltbox": Contender(ours)}


#: It refuses to write to a folder that it has written to before.
RUN_AFRESH = """
import runpy, shutil, sys
shutil.rmtree(sys.argv[-1], ignore_errors=True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def outputs(folder: Path) -> str:
    """Size on disk, and whether pixels are the same."""
    files = {name: sorted((folder / name / "images").glob("*.png")) for name in ("mmrotate", "tiltbox")}
    same = [path.name for path in files["mmrotate"]] == [path.name for path in files["tiltbox"]] and all(
        np.array_equal(cv2.imread(str(a)), cv2.imread(str(b))) for a, b in zip(*files.values(), strict=True)
    )
    rows = [
        [name, f"{len(paths):,}", f"{sum(path.stat().st_size for path in paths) / 1e6:.0f}"]
        for name, paths in files.items()
    ]
    shutil.rmtree(folder / "tiltbox")
    return (
        table(["", "patches", "MB"], rows)
        + f"\n\nNames and pixels are {'the same' if same else 'NOT the same'}."
    )


if __name__ == "__main__":
    main()
