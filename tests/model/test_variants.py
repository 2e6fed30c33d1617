from __future__ import annotations

import pytest
import yaml

from tiltbox.errors import SettingsError
from tiltbox.model.variants import find_variant, load_variants, published_checkpoint

# layers, width, backbone layer, query size: the design's table, resolved from the public configs.
TABLE = {
    "yoloms-xs-previous": (1, 0.40, "bottleneck", None),
    "yoloms-s-previous": (1, 0.54, "bottleneck", None),
    "yoloms-l-previous": (2, 0.80, "bottleneck", None),
    "yoloms-xs-current": (1, 0.42, "kxk_1x1", 4),
    "yoloms-s-current": (1, 0.55, "kxk_1x1", 5),
    "yoloms-l-current": (1, 0.87, "bottleneck", 4),
}
# neck layer, start branch, attention, kernels top-down, kernels bottom-up, head, groups
GENERATIONS = {
    "previous": ("bottleneck", 1, (), ((3, 3), (3, 3)), ((3, 3), (3, 3)), "shared", None),
    "current": ("kxk_1x1", 2, (2, 3, 4), ((3, 3), (5, 5)), ((5, 5), (7, 7)), "unshared", 4),
}


def row_of(name: str) -> dict:
    """A row as plain data, on its own: compared with nothing."""
    return find_variant(name).model_dump(mode="json") | {"compared_with": []}


@pytest.fixture
def table(tmp_path):
    def write(row: dict, name: str = "mine"):
        path = tmp_path / "variants.yaml"
        path.write_text(yaml.safe_dump({"weights": "https://example.org", "variants": {name: row}}))
        return path

    return write


def test_no_row(tmp_path):
    path = tmp_path / "variants.yaml"
    path.write_text("weights: https://example.org\nvariants: {}\n")
    with pytest.raises(SettingsError, match=r"variants: \{\} is not accepted"):
        load_variants(path)


def test_the_published_ones_are_there():
    assert set(TABLE) <= set(load_variants().variants)


@pytest.mark.parametrize("name", TABLE)
def test_row(name):
    row = find_variant(name)
    assert (row.layers, row.width, row.backbone_layer, row.query_size) == TABLE[name]
    generation = name.rsplit("-", 1)[1]
    assert (row.family, row.series) == ("yoloms", f"YOLO-MS {generation}")
    assert GENERATIONS[generation] == (
        row.neck_layer,
        row.start_branch,
        row.attention,
        row.top_down_kernels,
        row.bottom_up_kernels,
        row.head,
        row.head_groups,
    )


def test_unknown_variant():
    with pytest.raises(SettingsError, match="unknown variant 'yoloms-xs'; did you mean 'yoloms-xs-"):
        find_variant("yoloms-xs")


def test_url():
    table = load_variants()
    assert table.url(None) is None
    assert table.url("a/b.pth") == f"{table.weights}/a/b.pth"


def test_published_checkpoint():
    assert published_checkpoint("yoloms-xs-current") == (
        "https://www.modelscope.cn/models/wokaikaixinxin/ai4rs/resolve/master/rotated_yoloms"
        "/yoloms-xs_syncbn_fast_2xb4-36e_dota/epoch_36.pth"
    )
    with pytest.raises(
        SettingsError, match=r"variants.yoloms-l-current.checkpoint: no weights are published"
    ):
        published_checkpoint("yoloms-l-current")
    with pytest.raises(SettingsError, match="did you mean 'yoloms-l-current'"):
        published_checkpoint("yoloms-l-curent")


@pytest.mark.parametrize(
    ("of", "change", "message"),
    [
        ("previous", {"query_size": 4}, "variants.mine: attention and query_size go together"),
        ("previous", {"attention": [2]}, "variants.mine: attention and query_size go together"),
        ("current", {"query_size": None}, "variants.mine: attention and query_size go together"),
        ("current", {"attention": []}, "variants.mine: attention and query_size go together"),
        ("current", {"attention": [5]}, "variants.mine.attention.0: 5 is not accepted"),
        ("current", {"query_size": 0}, "variants.mine.query_size: 0 is not accepted"),
        ("current", {"head_groups": None}, "variants.mine: head_groups belongs to the unshared head"),
        ("current", {"head": "shared"}, "variants.mine: head_groups belongs to the unshared head"),
        ("previous", {"head_groups": 4}, "variants.mine: head_groups belongs to the unshared head"),
        (
            "current",
            {"width": 0.43},
            "variants.mine: width 0.43 gives the head 103 channels, which",
        ),
        ("previous", {"width": 0.001}, "variants.mine: width 0.001 leaves no channels for the head"),
        ("previous", {"head": "split"}, "variants.mine.head: 'split' is not accepted"),
        ("current", {"size": "huge"}, "variants.mine.size: 'huge' is not accepted"),
        ("current", {"series": ""}, "variants.mine.series: '' is not accepted"),
        (
            "current",
            {"family": "yolms"},
            "variants.mine.family: unknown family 'yolms'; did you mean 'yoloms'?",
        ),
        (
            "current",
            {"compared_with": ["mien"]},
            "variants.yaml: mine: compared_with has 'mien', which is not",
        ),
        (
            "current",
            {"compared_with": ["mine"]},
            "variants.yaml: mine: compared_with has 'mine', which is not",
        ),
        ("current", {"width": 0}, "variants.mine.width: 0 is not accepted"),
        ("current", {"layers": 0}, "variants.mine.layers: 0 is not accepted"),
        ("current", {"start_branch": 3}, "variants.mine.start_branch: 3 is not accepted"),
        (
            "current",
            {"top_down_kernels": [[3, 4], [3, 3]]},
            "variants.mine.top_down_kernels.0.1: a kernel of 4 has no centre; give an odd number",
        ),
        ("current", {"top_down_kernels": [[3, 3]]}, "variants.mine.top_down_kernels.1: is missing"),
        ("current", {"widht": 1}, "variants.mine.widht: unknown key; did you mean 'width'?"),
    ],
)
def test_refused_row(table, of, change, message):
    with pytest.raises(SettingsError) as error:
        load_variants(table(row_of(f"yoloms-s-{of}") | change))
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["yoloms-s-current", "rtmdet-r-s", "yolov8-n"])
def test_every_key_is_needed(table, name):
    """A row states its detector in full: nothing is inherited or assumed."""
    row = row_of(name)
    for key in row:
        with pytest.raises(SettingsError, match=f"variants.mine.{key}: is missing; add it"):
            load_variants(table({other: value for other, value in row.items() if other != key}))


@pytest.mark.parametrize(
    ("name", "key", "known"),
    [("rtmdet-r-s", "depht", "depth"), ("yolov8-n", "blcok", "block"), ("yoloms-s-current", "haed", "head")],
)
def test_a_misspelt_key_is_compared_with_those_of_its_family(table, name, key, known):
    with pytest.raises(SettingsError, match=f"variants.mine.{key}: unknown key; did you mean '{known}'"):
        load_variants(table(row_of(name) | {key: 1}))


@pytest.mark.parametrize("name", ["", "Mine", "a/b", "a b", "a'b", "-a"])
def test_a_name_that_folders_and_rules_cannot_have(table, name):
    with pytest.raises(SettingsError, match="is not accepted"):
        load_variants(table(row_of("yoloms-s-current"), name))
