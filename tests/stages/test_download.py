from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tiltbox.configs import validated
from tiltbox.dota.images.pixels import write_png
from tiltbox.errors import DataError, OutputError
from tiltbox.files.atomic import MARK, write_json
from tiltbox.settings.datasets import Dataset, find_dataset
from tiltbox.stages.download import download

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "../shared/dota-sample"
SHIP = "0 0 9 0 9 5 0 5 ship 0\n"
PAGE = "https://example.org/page"


def dataset_of(source: dict, **keys) -> Dataset:
    base = {"name": "mine", "schedule": "smoke", "source": source}
    return validated(Dataset, base | keys, "mine.yaml")


def add(folder: Path, name: str, labels: str | None = SHIP) -> None:
    """Add an image, and a label file unless ``labels`` is None."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write_png(folder / "images" / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    if labels is not None:
        (folder / "labelTxt").mkdir(exist_ok=True)
        (folder / "labelTxt" / f"{name}.txt").write_text(labels)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def mine(tmp_path) -> Path:
    """A user's folder: two images for training, one with labels to test on, one without."""
    folder = tmp_path / "mine"
    add(folder / "train", "P0", SHIP * 3)
    add(folder / "train", "P1", "")
    add(folder / "val", "P2")
    add(folder / "test", "P3", labels=None)
    return folder


@pytest.fixture
def packed(tmp_path, mine) -> Path:
    """The same as five archives of different kinds, in a separate folder."""
    folder = tmp_path / "packed"
    for split, kinds in (("train", ("images", "labelTxt")), ("val", ("images", "labelTxt"))):
        for kind in kinds:
            (folder / split).mkdir(parents=True, exist_ok=True)
            with tarfile.open(folder / split / f"{kind}.tar.gz", "w:gz") as file:
                file.add(mine / split / kind, f"DOTA/{split}/{kind}-v1.0")
    with zipfile.ZipFile(folder / "test.zip", "w") as file:
        file.write(mine / "test/images/P3.png", "P3.png")
    return folder


@pytest.fixture
def server(serve, packed):
    return serve(packed)


def archived(base_url: str, packed: Path, **keys) -> Dataset:
    files = [
        {"file": f"{into}.tar.gz", "into": into, "md5": hashlib.md5(path.read_bytes()).hexdigest()}
        for into in ("train/images", "train/labelTxt", "val/images", "val/labelTxt")
        if (path := packed / f"{into}.tar.gz").exists()
    ]
    files.append({"file": "test.zip", "into": "test/images", "by_hand": True})
    return dataset_of({"archives": {"page": PAGE, "base_url": base_url, "files": files}}, **keys)


# the user's own folder ----------------------------------------------------------------------------------


def test_folder_is_linked_and_counted(tmp_path, mine):
    before = everything(mine)
    out = tmp_path / "data/mine/raw"
    manifest = download(dataset_of({"folder": str(mine)}), out)
    assert manifest["splits"] == {
        "train": {"images": 2, "objects": 3},
        "val": {"images": 1, "objects": 1},
        "test": {"images": 1, "objects": None},
    }
    assert (manifest["dataset"], manifest["source"], manifest["archives"]) == ("mine", "folder", {})
    assert json.loads((out / "manifest.json").read_text()) == manifest
    for link, target in (("train/images", "train/images"), ("val/labelTxt", "val/labelTxt")):
        assert (out / link).readlink() == mine / target
    assert not (out / "test/labelTxt").exists()
    assert everything(mine) == before


def test_a_project_with_its_images_in_it_can_be_moved(tmp_path, mine, monkeypatch):
    monkeypatch.chdir(tmp_path)
    download(dataset_of({"folder": str(mine)}), Path("data/mine/raw"))
    link = Path("data/mine/raw/train/images")
    assert link.readlink() == Path("../../../../mine/train/images")
    assert everything(link) == everything(mine / "train/images")


def test_again_gives_the_same_and_leaves_the_folder_alone(tmp_path, mine):
    before = everything(mine)
    dataset = dataset_of({"folder": str(mine)})
    first = download(dataset, tmp_path / "raw")
    (tmp_path / "raw/manifest.json").unlink()  # as Snakemake does before it runs a rule again
    assert download(dataset, tmp_path / "raw") == first
    assert download(dataset, tmp_path / "raw") == first
    assert everything(mine) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "raw", "raw.provenance.json"]


def test_another_dataset_takes_the_place_of_the_links_only(tmp_path, mine):
    before = everything(mine)
    download(dataset_of({"folder": str(mine)}), tmp_path / "raw")
    download(dataset_of({"render": {"images": {"train": 1, "val": 1}}}), tmp_path / "raw")
    assert everything(mine) == before
    assert not (tmp_path / "raw/train/images").is_symlink()


def test_folders_with_names_of_their_own(tmp_path, mine):
    (mine / "train/labelTxt").rename(mine / "train/labels")
    splits = {
        "train": {"images": "train/images", "labels": "train/labels"},
        "val": {"images": "test/images", "labels": None},
    }
    dataset = dataset_of({"folder": str(mine)}, splits=splits, test_labelled=False)
    manifest = download(dataset, tmp_path / "raw")
    assert manifest["splits"]["val"] == {"images": 1, "objects": None}
    assert (tmp_path / "raw/train/labelTxt/P0.txt").read_text() == SHIP * 3
    assert (tmp_path / "raw/val/images/P3.png").is_file()


def unlabelled(mine: Path) -> None:
    shutil.rmtree(mine / "train/labelTxt")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"mine: folder not found; correct source\.folder"),
        (lambda mine: shutil.rmtree(mine / "val"), r"val/images: folder not found"),
        (unlabelled, r"train/labelTxt: folder not found, but train needs labels"),
        (
            lambda mine: shutil.rmtree(mine / "val/labelTxt"),
            r"val/labelTxt: folder not found, but val",
        ),
        (lambda mine: (mine / "val/images/P2.png").unlink(), r"val/images: contains no images"),
        (
            lambda mine: [add(mine / "train", f"Q{i}", None) for i in range(4)],
            r"train/labelTxt: no label file for image Q0, Q1, Q2 and 1 more;",
        ),
        (
            lambda mine: (mine / "train/labelTxt/Q0.txt").write_text(""),
            r"train/images: no image for label file Q0;",
        ),
        (
            lambda mine: (mine / "val/labelTxt/P2.txt").write_text(f"gsd:1\n{SHIP}0 0 9 0 ship 0\n"),
            r"val/labelTxt/P2\.txt:3: has 6 words",
        ),
        (
            lambda mine: (mine / "val/labelTxt/P2.txt").write_text(SHIP.replace("ship", "sihp")),
            r"val/labelTxt/P2\.txt:1: unknown class 'sihp'; did you mean 'ship'",
        ),
    ],
)
def test_bad_folder(tmp_path, mine, spoil, message):
    spoil(mine)
    with pytest.raises(DataError, match=message):
        download(dataset_of({"folder": str(mine)}), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"train": {"images": 3}}, r"mine: expected\.train: 3 images expected, but 2 found"),
        ({"train": {"images": 2, "objects": 4}}, r"4 objects expected, but 3 found"),
        ({"test": {"images": 1, "objects": 4}}, r"expected\.test: 4 objects expected, but 0 found"),
    ],
)
def test_counts_that_are_not_as_expected(tmp_path, mine, expected, message):
    with pytest.raises(DataError, match=message):
        download(dataset_of({"folder": str(mine)}, expected=expected), tmp_path / "raw")


def test_counts_as_expected(tmp_path, mine):
    expected = {"train": {"images": 2, "objects": 3}, "test": {"images": 1}}
    download(dataset_of({"folder": str(mine)}, expected=expected), tmp_path / "raw")


# what must not be overwritten ---------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["mine", ".", "mine/train", "mine/train/images"])
def test_output_over_the_users_images(tmp_path, mine, out):
    before = everything(mine)
    with pytest.raises(OutputError, match=r"(choose another|name a) folder"):
        download(dataset_of({"folder": str(mine)}), tmp_path / out)
    assert everything(mine) == before


def test_output_over_a_folder_that_only_looks_like_ours(tmp_path, mine):
    write_json(mine / "manifest.json", {})
    before = everything(mine)
    with pytest.raises(OutputError, match="does not say that 'tiltbox download' wrote it"):
        download(dataset_of({"render": {"images": {"train": 1, "val": 1}}}), mine)
    assert everything(mine) == before


def test_output_over_a_source_that_was_moved_into_it(tmp_path, mine):
    download(dataset_of({"folder": str(mine)}), tmp_path / "raw")
    moved = mine.rename(tmp_path / "raw/mine")
    before = everything(moved)
    with pytest.raises(OutputError, match=r"raw: contains .*/raw/mine, which it is made from"):
        download(dataset_of({"folder": str(moved)}), tmp_path / "raw")
    assert everything(moved) == before


def test_output_through_a_link(tmp_path, mine):
    (tmp_path / "raw").symlink_to(mine)
    with pytest.raises(OutputError):
        download(dataset_of({"render": {"images": {"train": 1, "val": 1}}}), tmp_path / "raw")
    assert (mine / "train/images/P0.png").is_file()


def test_output_where_nothing_can_be_written(tmp_path, mine):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write here"):
        download(dataset_of({"folder": str(mine)}), tmp_path / "file/raw")


# archives -----------------------------------------------------------------------------------------------


def test_archives_are_fetched_and_unpacked(tmp_path, mine, packed, server):
    dataset = archived(server, packed)
    place = tmp_path / "data/archives/mine"
    place.mkdir(parents=True)
    shutil.copy(packed / "test.zip", place)
    manifest = download(dataset, tmp_path / "data/raw")
    unpacked = everything(tmp_path / "data/raw")
    manifest_text = unpacked.pop("manifest.json")
    assert unpacked.pop(MARK)
    assert unpacked == everything(mine)
    assert json.loads(manifest_text) == manifest
    assert manifest["archives"]["train/images.tar.gz"] == dataset.source.archives.files[0].checksum
    assert manifest["archives"]["test.zip"] is None
    assert everything(place) == everything(packed)


def test_archives_that_are_there_are_not_fetched(tmp_path, mine, packed):
    before = everything(packed)
    dataset = archived("http://127.0.0.1:9", packed)
    download(dataset, tmp_path / "raw", archives=packed)
    assert everything(packed) == before
    assert not (tmp_path / "archives").exists()


def test_what_the_users_archives_lack_is_fetched_beside_the_output(tmp_path, packed, server):
    dataset = archived(server, packed)
    own = tmp_path / "own"
    shutil.copytree(packed, own)
    (own / "val/images.tar.gz").unlink()
    download(dataset, tmp_path / "data/raw", archives=own)
    assert list(everything(tmp_path / "data/archives/mine")) == ["val/images.tar.gz"]
    assert "val/images.tar.gz" not in everything(own)


def test_an_error_in_place_of_an_archive_without_checksum(tmp_path, packed, server):
    """The next call asks again, even if a web page was taken for the archive before."""
    splits = ("train/images", "train/labelTxt", "val/images", "val/labelTxt")
    files = [{"file": f"{into}.tar.gz", "into": into} for into in splits]
    dataset = dataset_of({"archives": {"page": PAGE, "base_url": server, "files": files}})
    name, text = "train/images.tar.gz", '{"error": "quota exceeded"}'
    fetched, whole = tmp_path / "data/archives/mine" / name, (packed / name).read_bytes()
    (packed / name).write_text(text)
    with pytest.raises(DataError, match=r"is damaged or another kind of file: it starts with .*quota exceed"):
        download(dataset, tmp_path / "data/raw")
    assert not fetched.exists()
    (packed / name).write_bytes(whole)
    fetched.write_text(text)
    download(dataset, tmp_path / "data/raw")
    assert fetched.read_bytes() == whole


def test_datasets_do_not_share_archives(tmp_path, mine, packed, server):
    """Their files have the same names, and one of them has no checksum."""
    for name in ("one", "two"):
        place = tmp_path / "data/archives" / name
        place.mkdir(parents=True)
        with zipfile.ZipFile(place / "test.zip", "w") as file:
            file.write(mine / "test/images/P3.png", f"{name}.png")
        download(archived(server, packed, name=name), tmp_path / "data" / name)
        assert list(everything(tmp_path / "data" / name / "test")) == [f"images/{name}.png"]


@pytest.mark.parametrize("source", ["archives", "render"])
def test_output_in_the_place_of_the_fetched_archives(tmp_path, packed, server, source):
    fetched = tmp_path / "archives/mine/train/images.tar.gz"
    fetched.parent.mkdir(parents=True)
    shutil.copy(packed / "train/images.tar.gz", fetched)
    render = dataset_of({"render": {"images": {"train": 1, "val": 1}}})
    dataset = archived(server, packed) if source == "archives" else render
    with pytest.raises(OutputError, match="archives: is reserved for the archives"):
        download(dataset, tmp_path / "archives")
    assert list(everything(tmp_path / "archives")) == ["mine/train/images.tar.gz"]


def test_output_over_the_users_archives(tmp_path, packed):
    dataset = archived("http://127.0.0.1:9", packed)
    download(dataset, tmp_path / "raw", archives=packed)
    (tmp_path / "raw/manifest.json").unlink()
    moved = packed.rename(tmp_path / "raw/packed")
    with pytest.raises(OutputError, match=r"raw: contains .*raw/packed, which it is made from"):
        download(dataset, tmp_path / "raw", archives=moved)
    assert (moved / "test.zip").exists()


def test_nothing_is_fetched_for_an_output_that_cannot_be(tmp_path, packed, server):
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"data/raw: is not empty"):
        download(archived(server, packed), tmp_path / "data/raw")
    assert list(everything(tmp_path / "data")) == ["raw/thesis.txt"]


def test_complete_archives_are_not_unpacked_again(tmp_path, packed):
    dataset = archived("http://127.0.0.1:9", packed)
    first = download(dataset, tmp_path / "raw", archives=packed)
    shutil.rmtree(packed)
    assert download(dataset, tmp_path / "raw", archives=None) == first


@pytest.mark.parametrize("lost", ["train/images/P1.png", "val/labelTxt/P2.txt", "manifest.json"])
def test_incomplete_output_is_made_again(tmp_path, packed, lost):
    dataset = archived("http://127.0.0.1:9", packed)
    first = download(dataset, tmp_path / "raw", archives=packed)
    (tmp_path / "raw" / lost).unlink()
    assert download(dataset, tmp_path / "raw", archives=packed) == first
    assert (tmp_path / "raw" / lost).is_file()


@pytest.mark.parametrize("own", [None, "own"])
def test_archive_that_only_a_person_can_fetch(tmp_path, packed, own):
    folder = own and tmp_path / own
    if own:
        folder.mkdir()
    dataset = archived("http://127.0.0.1:9", packed)  # nothing else is tried before that exists
    place = (folder or tmp_path / "archives/mine") / "test.zip"
    with pytest.raises(DataError, match=f"{place}: is missing.*get it from {PAGE} and put it there"):
        download(dataset, tmp_path / "raw", archives=folder)


def test_no_folder_of_archives(tmp_path, packed):
    with pytest.raises(DataError, match="nowhere: folder not found"):
        download(archived("http://x", packed), tmp_path / "raw", archives=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("val/images.tar.gz", b"\x1f\x8b broken", r"val/images\.tar\.gz: has the checksum md5:\w+, not md5:"),
        ("test.zip", b"PK\x03\x04 cut off", r"test\.zip: is not a complete zip or tar archive"),
        ("test.zip", b"<!doctype html><title>Virus scan", r"test\.zip: is a web page, not the file"),
    ],
)
def test_bad_archive_of_the_users(tmp_path, packed, name, content, message):
    dataset = archived("http://127.0.0.1:9", packed)
    (packed / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        download(dataset, tmp_path / "raw", archives=packed)
    assert (packed / name).read_bytes() == content
    assert not (tmp_path / "raw").exists()


def test_horizontal_boxes_in_an_archive_are_skipped(tmp_path, mine, packed):
    with tarfile.open(packed / "train/labelTxt.tar.gz", "w:gz") as file:
        for kind in ("labelTxt", "Train_Task2_gt/trainset_reclabelTxt"):
            file.add(mine / "train/labelTxt", f"labelTxt-v1.0/{kind}")
    manifest = download(archived("http://localhost", packed), tmp_path / "raw", archives=packed)
    assert manifest["splits"]["train"] == {"images": 2, "objects": 3}


def test_bad_label_in_an_archive_is_named_by_the_output(tmp_path, mine, packed):
    with tarfile.open(packed / "val/labelTxt.tar.gz", "w:gz") as file:
        (mine / "val/labelTxt/P2.txt").write_text("x")
        file.add(mine / "val/labelTxt", "labelTxt")
    with pytest.raises(DataError, match=f"{tmp_path}/raw/val/labelTxt/P2.txt:1: has 1 words"):
        download(archived("http://127.0.0.1:9", packed), tmp_path / "raw", archives=packed)
    assert not (tmp_path / "raw").exists()


def test_no_space_to_unpack(tmp_path, packed, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(OutputError, match="needs at least"):
        download(archived("http://127.0.0.1:9", packed), tmp_path / "raw", archives=packed)


@pytest.mark.parametrize("there", [0, 0.4, 1])  # of the first archive
def test_space_for_all_archives_is_checked_before_the_first(tmp_path, packed, server, monkeypatch, there):
    """For what must still be downloaded, and for all that is in the archives."""
    sizes = {name: len(content) for name, content in everything(packed).items()}
    dataset, place = archived(server, packed), tmp_path / "data/archives/mine"
    (place / "train").mkdir(parents=True)
    shutil.copy(packed / "test.zip", place)
    first = "train/images.tar.gz"
    had = round(there * sizes[first])
    part = place / (first if there == 1 else f"{first}.part")
    part.write_bytes((packed / first).read_bytes()[:had])
    needed = 2 * sum(sizes.values()) - sizes["test.zip"] - had
    before = everything(tmp_path / "data")

    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(OutputError, match=r"data: needs at least .* free some space"):
        download(dataset, tmp_path / "data/raw")
    assert everything(tmp_path / "data") == before
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=needed))
    download(dataset, tmp_path / "data/raw")


# the mini set and the sample ----------------------------------------------------------------------------


def test_mini_is_rendered(tmp_path):
    mini = find_dataset("mini", ROOT / "configs")
    keys = mini.model_dump(mode="json", exclude={"expected"}, exclude_none=True)
    keys["source"]["render"]["images"] = {"train": 3, "val": 1, "test": 1}
    manifest = download(validated(Dataset, keys, "mini"), tmp_path / "raw")
    counts = manifest["splits"]
    assert [counts[split]["images"] for split in ("train", "val", "test")] == [3, 1, 1]
    assert counts["train"]["objects"] > 30 and counts["test"]["objects"] is None
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == [
        MARK,
        "manifest.json",
        "test",
        "train",
        "val",
    ]


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs the DOTA images of ../shared/dota-sample")
def test_dota_sample(tmp_path):
    manifest = download(dataset_of({"folder": str(SAMPLE)}), tmp_path / "raw")
    lines = {
        split: [
            line
            for path in (SAMPLE / split / "labelTxt").glob("*.txt")
            for line in path.read_text().splitlines()
            if line.split() and ":" not in line
        ]
        for split in ("train", "val")
    }
    assert manifest["splits"] == {
        "train": {"images": 4, "objects": len(lines["train"])},
        "val": {"images": 2, "objects": len(lines["val"])},
    }
