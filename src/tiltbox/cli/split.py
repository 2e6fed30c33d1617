"""``tiltbox split``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from tiltbox.cli.options import add_dataset, add_out, at_least, classes_of
from tiltbox.cli.wording import counted, warn_of
from tiltbox.defaults import LEAST_IOF, PATCH_OVERLAP, PATCH_SIZE, RATES
from tiltbox.layout import LEFT_OUT

HELP = "cut images and labels into overlapping patches"


def add_options(verb: ArgumentParser) -> None:
    verb.add_argument(
        "sources", nargs="+", type=Path, metavar="SRC", help="folder with images/ and labelTxt/"
    )
    add_out(verb, "DIR", "folder for images/, annfiles/ and manifest.json")
    _add_cutting(verb)
    verb.add_argument("--workers", type=at_least(1), metavar="N", help="processes (default: all cores)")
    add_dataset(verb)


def _add_cutting(verb: ArgumentParser) -> None:
    help = "side of a patch (default: %(default)s)"
    verb.add_argument("--size", type=at_least(1), default=PATCH_SIZE, metavar="PX", help=help)
    help = "overlap of patches (default: %(default)s)"
    verb.add_argument("--overlap", type=at_least(0), default=PATCH_OVERLAP, metavar="PX", help=help)
    help = f"scales to cut at (default: {' '.join(map(str, RATES))})"
    verb.add_argument("--rates", nargs="+", type=float, default=list(RATES), metavar="R", help=help)
    help = "least share of an object to keep it (default: %(default)s)"
    verb.add_argument("--iof", type=float, default=LEAST_IOF, metavar="F", help=help)


def run(options: Namespace) -> None:
    from tiltbox.stages.split import split

    manifest = split(
        options.sources,
        options.out,
        size=options.size,
        overlap=options.overlap,
        rates=tuple(options.rates),
        iof=options.iof,
        workers=options.workers,
        classes=classes_of(options),
    )
    objects = f" with {counted(manifest['objects_in_patches'], 'object')}" if manifest["labelled"] else ""
    patches, images = counted(manifest["patches"], "patch", "patches"), counted(manifest["images"], "image")
    print(f"{patches}{objects} of {images}")
    _warn_of_losses(manifest, f"listed in {options.out / LEFT_OUT}")


def _warn_of_losses(manifest: dict[str, Any], listed: str) -> None:
    warn_of(manifest["objects_without_area"], "object", f"without area left out, {listed}")
    warn_of(manifest["objects_outside_images"], "object", f"outside the image left out, {listed}")
    remedy = "raise --overlap, cut with a larger --size, or add a rate below 1, such as --rates 1.0 0.5"
    cut = f"left out because every patch cuts off too much, {listed}; {remedy}"
    warn_of(manifest["objects_cut_by_every_patch"], "object", cut)
    black = "nearly black: only the high byte of 16-bit samples is kept, so stretch them to 8 bits first"
    warn_of(manifest["nearly_black_images"], "image", black)
