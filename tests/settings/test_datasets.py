from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.errors import SettingsError
from tiltbox.settings.datasets import find_dataset

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FOLDER = {"name": "mine", "source": {"folder": "images"}, "schedule": "smoke"}
RENDER = FOLDER | {"source": {"render": {"images": {"train": 2, "val": 1, "test": 1}}}}
SHIPPED = sorted({path.stem for path in (CONFIGS / "datasets").glob("*.yaml")} - {"template"})
PAGE = "https://example.org/page"
FILES = [
    {"file": f"{split}_{kind}.zip", "into": f"{split}/{kind}", "url": f"https://example.org/{split}_{kind}"}
    for split in ("train", "val")
    for kind in ("images", "labelTxt")
]
ARCHIVES = FOLDER | {"source": {"archives": {"page": PAGE, "files": FILES}}}
LABELS = {"images": "a", "labels": "b"}
BARE = {"images": "a", "labels": None}


def written(tmp_path: Path, content: dict) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def changed(content: dict, file: dict | None = None, **archives) -> dict:
    """ARCHIVES with changed keys of its first file and of the source."""
    content = copy.deepcopy(content)
    content["source"]["archives"] |= archives
    if file:
        content["source"]["archives"]["files"][0] |= file
    return content


def test_nothing(tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(SettingsError, match="contains no keys; give name, source"):
        find_dataset(str(tmp_path / "mine.yaml"))


def test_least_that_is_needed(tmp_path):
    dataset = find_dataset(written(tmp_path, FOLDER))
    assert dataset.classes == DOTA_V1_CLASSES
    assert (dataset.train_splits, dataset.test_split, dataset.test_labelled) == (("train",), "val", True)
    assert (dataset.patch.size, dataset.patch.overlap, dataset.patch.rates) == (1024, 200, (1.0,))
    assert dataset.splits is None and dataset.expected == {}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files(name):
    dataset = find_dataset(name, CONFIGS)
    assert dataset.name == name
    assert (CONFIGS / "schedules" / f"{dataset.schedule}.yaml").is_file()


def test_dota_val():
    """The same archives and counts as DOTA's, without those to download by hand, and scored here."""
    whole, labelled = find_dataset("dota", CONFIGS), find_dataset("dota-val", CONFIGS)
    fetched = [each for each in whole.source.archives.files if not each.by_hand]
    assert list(labelled.source.archives.files) == fetched and len(fetched) == 4
    assert labelled.expected == {name: whole.expected[name] for name in ("train", "val")}
    assert (labelled.train_splits, labelled.test_split, labelled.test_labelled) == (("train",), "val", True)
    assert (labelled.patch, labelled.schedule) == (whole.patch, whole.schedule)


def test_dota():
    dataset = find_dataset("dota", CONFIGS)
    archives = dataset.source.archives
    addresses = {archive.file: archives.url(archive) for archive in archives.files}
    assert addresses["dotav1.0_images_val.tar.gz"] == (
        "https://hf.co/datasets/isaaccorley/dota/resolve/672e63236622f7da6ee37fca44c50ac368b77cab"
        "/dotav1.0_images_val.tar.gz"
    )
    assert {archive.file: archive.checksum for archive in archives.files if not archive.by_hand} == {
        "dotav1.0_images_train.tar.gz": "md5:363b472dc3c71e7fa2f4a60223b437ea",
        "dotav1.0_images_val.tar.gz": "md5:42293219ba61d61c417ae558bbe1f2ba",
        "dotav1.0_annotations_train.tar.gz": "md5:f6788257bcc4d29018344a4128e3734a",
        "dotav1.0_annotations_val.tar.gz": "md5:28155c05b1dc3a0f5cb6b9bdfef85a13",
    }
    by_hand = [archive for archive in archives.files if archive.by_hand]
    assert {archive.split for archive in by_hand} == {"test"}
    assert all(archives.url(archive) is None for archive in by_hand)
    assert (dataset.train_splits, dataset.test_split, dataset.test_labelled) == (
        ("train", "val"),
        "test",
        False,
    )
    assert sum(expected.images for expected in dataset.expected.values()) == 1411 + 458 + 937


@pytest.mark.parametrize("folder", ["images", "../images", "./images/", "sub/images"])
def test_folder_is_relative_to_the_file(tmp_path, monkeypatch, folder):
    path = written(tmp_path, FOLDER | {"source": {"folder": folder}})
    monkeypatch.chdir(tmp_path.parent)
    expected = (tmp_path / folder).resolve()
    assert find_dataset(path).source.folder == expected
    assert find_dataset(str(Path(path).relative_to(tmp_path.parent))).source.folder == expected


def test_absolute_folder_stays(tmp_path):
    path = written(tmp_path, FOLDER | {"source": {"folder": "/somewhere/else"}})
    assert find_dataset(path).source.folder == Path("/somewhere/else")


def test_url_of_an_archive(tmp_path):
    content = changed(ARCHIVES, base_url="https://example.org/base/", file={"url": None, "sha256": "a" * 64})
    archives = find_dataset(written(tmp_path, content)).source.archives
    assert archives.url(archives.files[0]) == "https://example.org/base/train_images.zip"
    assert archives.url(archives.files[1]) == "https://example.org/train_labelTxt"
    assert [archive.checksum for archive in archives.files[:2]] == ["sha256:" + "a" * 64, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FOLDER | {"nmae": "x"}, "nmae: unknown key; did you mean 'name'"),
        ({"name": "mine"}, "source: is missing"),
        (FOLDER | {"name": "My Set"}, "name: 'My Set' is not accepted"),
        (FOLDER | {"source": {}}, "source: gives nothing; give exactly one of render, folder, archives"),
        (
            FOLDER | {"source": {"folder": "x", "render": {"images": {"train": 1}}}},
            "source: gives render and folder; give exactly one",
        ),
        (FOLDER | {"source": {"floder": "x"}}, "source.floder: unknown key; did you mean 'folder'"),
        (
            FOLDER | {"patch": {"size": 512, "overlap": 512}},
            "patch: overlap 512 makes windows of 512 pixels share 512; give one from 0 to less than the size",
        ),
        (FOLDER | {"patch": {"size": 16}}, "patch.size: 16 is not accepted"),
        (FOLDER | {"patch": {"rates": []}}, "patch.rates: .* is not accepted"),
        (FOLDER | {"patch": {"rates": [0]}}, "patch.rates.0: 0 is not accepted"),
        (FOLDER | {"patch": {"rates": [1, 1.0]}}, "patch: rate 1.0 is given twice; remove one"),
        (FOLDER | {"patch": {"rates": [40]}}, "patch: rate 40.0 makes windows of 25.6 pixels; give one that"),
        (FOLDER | {"patch": {"rates": [1.0e-320]}}, "patch: rate 1e-320 makes windows of inf pixels"),
        (FOLDER | {"patch": {"iof": 1.5}}, "patch.iof: 1.5 is not accepted"),
        (FOLDER | {"patch": {"iof": 0}}, "patch.iof: 0 is not accepted"),
        (FOLDER | {"classes": ["ship", "plane", "ship"]}, "classes names 'ship' twice"),
        (FOLDER | {"classes": []}, "classes: .* is not accepted"),
        (FOLDER | {"classes": ["a/b"]}, "classes.0: 'a/b' is not accepted"),
        (FOLDER | {"classes": ["x" * 61]}, "classes.0: 'x+' is not accepted"),
        (FOLDER | {"classes": ["tennis court"]}, "classes.0: 'tennis court' is not accepted"),
        (FOLDER | {"classes": ["car{small}"]}, r"classes.0: 'car\{small\}' contains a brace"),
        (
            FOLDER | {"classes": ["a\x07b"]},
            r"classes.0: 'a\\x07b' contains a character that cannot be printed",
        ),
        (FOLDER | {"classes": ["café", "cafe\u0301"]}, "classes names 'café' twice"),
        (FOLDER | {"train_splits": []}, "train_splits: .* is not accepted"),
        (FOLDER | {"train_splits": ["train", "train"]}, "train_splits names 'train' twice"),
        (FOLDER | {"test_split": "validation"}, "test_split: 'validation' is not accepted"),
        (FOLDER | {"splits": {"train": LABELS}}, "test_split is 'val', for which the source has no images"),
        (
            FOLDER | {"splits": {"val": LABELS}},
            "train_splits names 'train', for which the source has no images",
        ),
        (
            FOLDER | {"splits": {"train": BARE, "val": LABELS}},
            "train_splits names 'train', for which the source has no labels",
        ),
        (
            FOLDER | {"splits": {"train": LABELS, "val": BARE}},
            "test_labelled is true, but 'val' has no labels",
        ),
        (FOLDER | {"splits": {"train": LABELS | {"images": "../a"}}}, "'../a' leads out of its folder"),
        (FOLDER | {"splits": {"train": {"images": "a"}}}, "splits.train.labels: is missing"),
        (RENDER | {"splits": {"train": LABELS}}, "splits belongs to a folder source"),
        (RENDER | {"test_split": "test"}, "test_labelled is true, but 'test' has no labels; set it to false"),
        (
            RENDER | {"train_splits": ["test"]},
            "train_splits names 'test', for which the source has no labels",
        ),
        (RENDER | {"source": {"render": {"images": {"train": 1, "val": 0}}}}, "test_split is 'val'"),
        (RENDER | {"source": {"render": {"scenes": "maxi", "images": {}}}}, "scenes: 'maxi' is not accepted"),
        (ARCHIVES | {"test_split": "test"}, "test_split is 'test', for which the source has no images"),
        (changed(ARCHIVES, files=[]), "files: .* is not accepted"),
        (
            changed(ARCHIVES, file={"url": None}),
            "train_images.zip has no url; give one, or base_url, or by_hand",
        ),
        (changed(ARCHIVES, file={"by_hand": True}), "has both url and by_hand"),
        (changed(ARCHIVES, file={"md5": "abc"}), "md5: 'abc' is not accepted"),
        (changed(ARCHIVES, file={"md5": "a" * 32, "sha256": "a" * 64}), "has both md5 and sha256; keep one"),
        (changed(ARCHIVES, file={"into": "train/pictures"}), "into: 'train/pictures' is not accepted"),
        (changed(ARCHIVES, file={"file": "../x.zip"}), "'../x.zip' leads out of its folder"),
        (changed(ARCHIVES, file={"file": "val_images.zip"}), "files names 'val_images.zip' twice"),
        (FOLDER | {"expected": {"train": {"objects": 5}}}, "expected.train.images: is missing"),
    ],
)
def test_bad_settings(tmp_path, content, message):
    with pytest.raises(SettingsError, match=message) as error:
        find_dataset(written(tmp_path, content))
    assert str(error.value).startswith(str(tmp_path / "mine.yaml"))


def test_unknown_name():
    with pytest.raises(SettingsError, match="unknown dataset 'dotta'; did you mean 'dota'"):
        find_dataset("dotta", CONFIGS)


def test_the_template_is_not_one_of_the_choices():
    with pytest.raises(SettingsError) as error:
        find_dataset("nowhere", CONFIGS)
    assert str(error.value).endswith(f"choose one of {', '.join(SHIPPED)}")
    with pytest.raises(SettingsError, match=r"template\.yaml: name: 'template' is only a placeholder"):
        find_dataset("template", CONFIGS)


def test_missing_file(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml: file not found"):
        find_dataset(str(tmp_path / "none.yaml"))


def test_file_named_otherwise(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/other.yaml").write_text(yaml.safe_dump(FOLDER))
    with pytest.raises(SettingsError, match="'mine' is not the name of the file; write 'other'"):
        find_dataset("other", tmp_path)


def test_the_template_is_complete_but_for_its_name(tmp_path):
    content = yaml.safe_load((CONFIGS / "datasets/template.yaml").read_text())
    with pytest.raises(SettingsError, match=r"mine\.yaml: name: 'template' is only a placeholder; give your"):
        find_dataset(written(tmp_path, content))
    assert find_dataset(written(tmp_path, content | {"name": "mine"})).name == "mine"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_name_of_another_dataset(tmp_path, name):
    """Its images and results would be replaced."""
    path = written(tmp_path, FOLDER | {"name": name})
    with pytest.raises(SettingsError, match=f"mine.yaml: name: '{name}' is the dataset of .*{name}.yaml"):
        find_dataset(path, CONFIGS)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_by_its_path(name):
    assert find_dataset(str(CONFIGS / f"datasets/{name}.yaml"), CONFIGS) == find_dataset(name, CONFIGS)


def test_a_file_among_the_shipped_ones_named_otherwise_by_its_path(tmp_path):
    (tmp_path / "datasets").mkdir()
    path = tmp_path / "datasets/other.yaml"
    path.write_text(yaml.safe_dump(FOLDER))
    with pytest.raises(SettingsError, match="'mine' is not the name of the file; write 'other'"):
        find_dataset(str(path), tmp_path)


# the content of a folder --------------------------------------------------------------------------------


def test_contents_of_no_folder(tmp_path):
    assert find_dataset("mini", CONFIGS).contents(["train"]) is None
    assert (
        find_dataset(written(tmp_path, FOLDER)).contents(["train"]) is not None
    )  # it is missing, which is reported elsewhere


@pytest.fixture(params=[None, {"train": {"images": "train/images", "labels": "train/labelTxt"}}])
def folder(request, tmp_path):
    """A dataset of one image, with and without explicit splits, and its folder."""
    for file, text in {"images/a.png": "picture", "labelTxt/a.txt": "1 2 3"}.items():
        path = tmp_path / "images/train" / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
    splits = {"splits": request.param} if request.param else {}
    dataset = find_dataset(written(tmp_path, FOLDER | splits | {"test_split": "train"}))
    return dataset, tmp_path / "images/train"


@pytest.mark.parametrize(
    ("file", "text", "same"),
    [
        ("labelTxt/a.txt", "1 2 3", True),  # rewritten without a change
        ("labelTxt/a.txt", "1 2 4", False),
        ("labelTxt/b.txt", "", False),
        ("images/a.png", "pixels!", True),  # images are not opened
        ("images/a.png", "larger picture", False),
        ("images/b.png", "", False),
        ("notes.txt", "", True),
        ("images/.DS_Store", "", True),
        ("images/Thumbs.db", "", True),
    ],
)
def test_contents(folder, file, text, same):
    dataset, root = folder
    before = dataset.contents(["train"])
    (root / file).write_text(text)
    assert (dataset.contents(["train"]) == before) == same
    (root / "images/a.png").unlink()
    assert dataset.contents(["train"]) != before


def test_contents_of_some_splits(folder):
    dataset, root = folder
    before = dataset.contents(["train"]), dataset.contents(["val"])
    assert before[0] != before[1]
    (root / "labelTxt/a.txt").write_text("1 2 4")
    assert dataset.contents(["train"]) != before[0] and dataset.contents(["val"]) == before[1]
    (root.parent / "train").rename(root.parent / "moved")
    assert dataset.contents(["train"]) == before[1]


def test_folders_that_are_there(folder):
    dataset, root = folder
    assert dataset.folders() == ["train/images", "train/labelTxt"]
    (root / "labelTxt").rename(root / "labels")
    assert dataset.folders() == ["train/images"]
    assert find_dataset("mini", CONFIGS).folders() == []
