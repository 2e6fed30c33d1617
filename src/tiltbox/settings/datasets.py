"""Where images and labels come from and how they are used: typed files of ``configs/datasets/``."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self, cast, get_args

from pydantic import AfterValidator, Field, model_validator

from tiltbox.configs import CONFIGS, Settings, fingerprint, known_name, load
from tiltbox.defaults import LEAST_IOF, PATCH_OVERLAP, PATCH_SIZE, RATES
from tiltbox.dota import labels
from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.images import listing
from tiltbox.dota.reading import plain_name
from tiltbox.dota.windows import Cutting
from tiltbox.errors import SettingsError

Split = Literal["train", "val", "test"]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(f"'{path}' leads out of its folder; give a relative path without '..'")
    return path


def _require_once(values: Sequence[str], key: str) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{key} names '{twice[0]}' twice; remove one")


InnerPath = Annotated[str, AfterValidator(_inside)]


class Render(Settings):
    """The synthetic set that is rendered on the spot."""

    scenes: Literal["mini"] = "mini"
    seed: int = Field(0, ge=0)
    size: int = Field(232, ge=128, description="side of the square images in pixels")
    images: dict[Split, Annotated[int, Field(ge=0)]] = Field(
        {"train": 150, "val": 40, "test": 8}, min_length=1
    )


class Archive(Settings):
    """One archive and where its files belong, whatever folders it contains."""

    file: InnerPath = Field(description="its path in the folder of archives")
    into: Literal[
        "train/images", "train/labelTxt", "val/images", "val/labelTxt", "test/images", "test/labelTxt"
    ]
    url: str | None = Field(None, description="its address, if that is not base_url/file")
    by_hand: bool = Field(False, description="must be downloaded by hand")
    md5: Annotated[Hex, Field(min_length=32, max_length=32)] | None = None
    sha256: Annotated[Hex, Field(min_length=64, max_length=64)] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.md5 and self.sha256:
            raise ValueError("has both md5 and sha256; keep one")
        if self.by_hand and self.url:
            raise ValueError("has both url and by_hand; remove one of them")
        return self

    @property
    def split(self) -> Split:
        return cast(Split, self.into.split("/")[0])

    @property
    def checksum(self) -> str | None:
        """``md5:...`` or ``sha256:...``, if one is known."""
        if self.md5:
            return f"md5:{self.md5}"
        return self.sha256 and f"sha256:{self.sha256}"


class Archives(Settings):
    """Published archives, and the page with those that must be downloaded by hand."""

    page: str
    base_url: str | None = None
    files: tuple[Archive, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _files_can_be_had(self) -> Self:
        for archive in self.files:
            if not archive.by_hand and self.url(archive) is None:
                raise ValueError(f"{archive.file} has no url; give one, or base_url, or by_hand: true")
        _require_once([archive.file for archive in self.files], "files")
        return self

    def url(self, archive: Archive) -> str | None:
        """The full address of an archive, None if it must be downloaded by hand."""
        if archive.by_hand:
            return None
        return archive.url or (self.base_url and f"{self.base_url.rstrip('/')}/{archive.file}")


class Source(Settings):
    """Where the images come from: exactly one of the three."""

    render: Render | None = None
    folder: Path | None = Field(None, description="in DOTA format; relative to the dataset file")
    archives: Archives | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            says = f"gives {' and '.join(given)}" if given else "gives nothing"
            raise ValueError(f"{says}; give exactly one of render, folder, archives")
        return self

    @property
    def kind(self) -> str:
        return "render" if self.render else "folder" if self.folder else "archives"


class SplitFolders(Settings):
    """The folders of one split, relative to the source folder; ``labels: null`` if there are none."""

    images: InnerPath
    labels: InnerPath | None


class Patch(Settings):
    """How images are cut: at every rate, windows that are ``size / rate`` pixels wide; none is resized."""

    size: int = Field(PATCH_SIZE, ge=32)
    overlap: int = Field(PATCH_OVERLAP, ge=0)
    rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(RATES, min_length=1)
    iof: float = Field(
        LEAST_IOF, gt=0, le=1, description="least share of an object in a window that keeps it"
    )

    @model_validator(mode="after")
    def _can_be_cut(self) -> Self:
        try:
            Cutting(self.size, self.overlap, self.rates, self.iof)
        except SettingsError as error:
            raise ValueError(f"{error.problem}; {error.remedy}") from None
        return self


class Expected(Settings):
    """The published counts of a split; ``objects: null`` where its labels are not public."""

    images: int = Field(ge=1)
    objects: int | None = Field(None, ge=0)


def _files(root: Path, folder: str | None, extensions: Collection[str]) -> Iterator[Path]:
    """The files that count in a folder of ``root``; none if it is missing."""
    for path in sorted((root / folder).glob("[!.]*")) if folder else ():
        if path.suffix.lower() in extensions and path.is_file():
            yield path


def _file_name(name: str) -> str:
    if not name.isprintable():
        raise ValueError(f"{name!r} contains a character that cannot be printed; give it another name")
    if "{" in name or "}" in name:
        raise ValueError(
            f"'{name}' contains a brace, which Snakemake takes for a wildcard; give it another name"
        )
    return plain_name(name)


# File names are made from them.
ClassName = Annotated[str, Field(pattern=r"^[^\s/]{1,60}$"), AfterValidator(_file_name)]


class Dataset(Settings):
    """One set of images: its source, which splits train and which are predicted, and how it is cut."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="names its folders under data and results")
    source: Source
    splits: dict[Split, SplitFolders] | None = Field(
        None, description="of a folder; by default <split>/images and <split>/labelTxt, where they exist"
    )
    train_splits: tuple[Split, ...] = Field(("train",), min_length=1)
    test_split: Split = Field("val", description="the split to predict")
    test_labelled: bool = Field(True, description="whether the test split has labels to evaluate with")
    classes: tuple[ClassName, ...] = Field(DOTA_V1_CLASSES, min_length=1)
    patch: Patch = Patch()
    schedule: str = Field(
        "auto", description="the training schedule, unless another is asked for; auto: what fits the data"
    )
    expected: dict[Split, Expected] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        _require_once(self.classes, "classes")
        _require_once(self.train_splits, "train_splits")
        if self.splits is not None and self.source.folder is None:
            raise ValueError("splits belongs to a folder source; remove it")
        labelled = self._declared()
        if labelled is not None:
            self._check_splits(labelled)
        return self

    def folders(self) -> list[str]:
        """The folders of images and labels of a folder source; none for other sources."""
        root = self.source.folder
        if root is None:
            return []
        named = [folder for split in get_args(Split) for folder in self._folders(split) if folder]
        return [folder for folder in named if (root / folder).is_dir()]

    def contents(self, splits: Iterable[Split]) -> str | None:
        """A hash of the content of these splits of a folder source: labels, and images by name and size.

        None for other sources. Thousands of images take a fraction of a second, since none is opened.
        """
        root = self.source.folder
        if root is None:
            return None
        found: dict[str, int | str] = {}
        for split in splits:
            image_folder, label_folder = self._folders(split)
            for path in _files(root, image_folder, listing.EXTENSIONS):
                found[f"{split}/images/{path.name}"] = path.stat().st_size
            for path in _files(root, label_folder, labels.EXTENSIONS):
                found[f"{split}/labels/{path.name}"] = hashlib.md5(path.read_bytes()).hexdigest()
        return fingerprint(found)

    def _folders(self, split: Split) -> tuple[str | None, str | None]:
        """Where images and labels of a split may be in the folder of a folder source."""
        if self.splits is None:
            return f"{split}/images", f"{split}/labelTxt"
        given = self.splits.get(split)
        return (given.images, given.labels) if given else (None, None)

    def _declared(self) -> dict[str, bool] | None:
        """Whether each split has labels, as far as the settings say before there are data."""
        if self.source.render:
            return {name: name != "test" for name, count in self.source.render.images.items() if count}
        if self.source.archives:
            targets = {archive.into for archive in self.source.archives.files}
            return {into.split("/")[0]: into.replace("images", "labelTxt") in targets for into in targets}
        if self.splits is None:
            return None
        return {name: folders.labels is not None for name, folders in self.splits.items()}

    def _check_splits(self, labelled: dict[str, bool]) -> None:
        choice = f"choose from {', '.join(labelled)}"
        for split in self.train_splits:
            if not labelled.get(split):
                lacks = "labels" if split in labelled else "images"
                raise ValueError(
                    f"train_splits names '{split}', for which the source has no {lacks}; {choice}"
                )
        if self.test_split not in labelled:
            problem = f"test_split is '{self.test_split}', for which the source has no images"
            raise ValueError(f"{problem}; {choice}")
        if self.test_labelled and not labelled[self.test_split]:
            raise ValueError(f"test_labelled is true, but '{self.test_split}' has no labels; set it to false")


PLACEHOLDER = "template"  # the name in the file that users copy


def find_dataset(name_or_path: str, configs: Path = CONFIGS) -> Dataset:
    """A dataset by the name of a file in ``configs/datasets`` or by the path of a file of its own.

    A relative ``source.folder`` is resolved against the folder of that file.

    Raises:
        SettingsError: The file is missing or wrong, or its name belongs to another dataset, whose data and
            results it would replace.
    """
    folder = configs / "datasets"
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        names = sorted(path.stem for path in folder.glob("*.yaml") if path.stem != PLACEHOLDER)
        if name_or_path != PLACEHOLDER:  # it has an error of its own
            known_name(name_or_path, names, str(folder), "dataset")
        path = folder / f"{name_or_path}.yaml"
    dataset = _load(path)
    _require_own_name(dataset.name, path, folder)
    return dataset


def _require_own_name(name: str, path: Path, folder: Path) -> None:
    if name == PLACEHOLDER:
        problem = f"'{name}' is only a placeholder"
        raise SettingsError(f"{path}: name", problem, "give your dataset a name of its own")
    if path.parent.resolve() == folder.resolve():
        if name != path.stem:
            problem = f"'{name}' is not the name of the file"
            raise SettingsError(f"{path}: name", problem, f"write '{path.stem}'")
    elif (folder / f"{name}.yaml").exists():
        problem = f"'{name}' is the dataset of {folder / name}.yaml, whose data and results would be replaced"
        raise SettingsError(f"{path}: name", problem, "choose another name")


def _load(path: Path) -> Dataset:
    dataset = load(Dataset, path)
    if dataset.source.folder is None:
        return dataset
    folder = (path.parent / dataset.source.folder.expanduser()).resolve()
    return dataset.model_copy(update={"source": Source(folder=folder)})
