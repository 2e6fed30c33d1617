"""``tiltbox download``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tiltbox.cli.options import add_out
from tiltbox.cli.wording import counted

HELP = "download and verify a dataset, or render the mini set"


def add_options(verb: ArgumentParser) -> None:
    verb.add_argument(
        "dataset", metavar="DATASET", help="mini, dota, dota-val, or the path of a dataset's YAML file"
    )
    add_out(verb, "DIR", "folder for train/, val/ and test/")
    verb.add_argument(
        "--archives", type=Path, metavar="DIR", help="folder with archives that you already have"
    )


def run(options: Namespace) -> None:
    from tiltbox.settings.datasets import find_dataset
    from tiltbox.stages.download import download

    file = Path(options.dataset) if options.dataset.endswith((".yaml", ".yml")) else None
    manifest = download(find_dataset(options.dataset), options.out, archives=options.archives, file=file)
    for name, counts in manifest["splits"].items():
        objects = "no labels" if counts["objects"] is None else counted(counts["objects"], "object")
        print(f"{name}: {counted(counts['images'], 'image')}, {objects}")
