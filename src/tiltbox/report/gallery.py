"""The gallery of the page: test images with labels and detections, as SVG over one picture of each image.

Each picture is in the page once; all detectors refer to it. Hits, misses and false alarms differ in line and
mark as well as in colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from tiltbox.records import Gallery, GalleryDetection, GalleryImage, GalleryObject
from tiltbox.report.collect import Row
from tiltbox.report.comparison import pairs
from tiltbox.report.formatting import counted

MOST_DRAWN = 200  # false alarms of a picture: a barely trained detector has thousands
LARGE = 512  # pixels
MARK = 0.014  # size of a mark, as a share of the picture's longer side
Place = tuple[str, str, int, int, int, int]  # name and hash of an image, and the window of it


@dataclass(frozen=True)
class Picture:
    """What all detectors share of an image; ``key`` is its name in the page."""

    key: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Drawing:
    """An image with the result of one detector: as lines, numbers and words."""

    name: str
    svg: Markup
    counts: str
    details: str


@dataclass(frozen=True)
class Detector:
    """``partner``: the first detector that it is compared with or that is compared with it, if any."""

    name: str
    partner: str | None
    counts: str
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class Exhibition:
    pictures: tuple[Picture, ...]
    detectors: tuple[Detector, ...]

    @property
    def large(self) -> bool:
        """Whether pictures must be large for their objects to be visible."""
        return max(max(each.width, each.height) for each in self.pictures) > LARGE


def exhibition(rows: Sequence[Row]) -> Exhibition | None:
    """The gallery of all rows that have one from their evaluation; None if no row has."""
    galleries = {row.name: row.gallery for row in rows if row.gallery and row.gallery.images}
    rows = [row for row in rows if row.name in galleries]
    pictures = {_place(image): image for shown in galleries.values() for image in shown.images}
    keys = {place: f"picture-{number}" for number, place in enumerate(pictures, 1)}
    shared = (
        Picture(keys[place], image.picture, image.width, image.height) for place, image in pictures.items()
    )
    detectors = tuple(
        _detector(row, galleries[row.name], rows, keys, f"boxes-{at}") for at, row in enumerate(rows, 1)
    )
    return Exhibition(tuple(shared), detectors) if detectors else None


def _place(image: GalleryImage) -> Place:
    """What pictures must share to be the same."""
    return image.name, image.source, image.left, image.top, image.width, image.height


def _detector(
    row: Row, shown: Gallery, rows: Sequence[Row], keys: Mapping[Place, str], prefix: str
) -> Detector:
    partners = (_name(other) for pair in pairs(rows) if row in pair for other in pair if other is not row)
    name = _name(row)
    drawings = tuple(
        Drawing(
            image.name,
            _svg(image, name, shown, keys[_place(image)], f"{prefix}-{at}"),
            _counts([image], shown),
            _details(image),
        )
        for at, image in enumerate(shown.images, 1)
    )
    counts = f"{_counts(shown.images, shown)}, {counted(len(shown.images), 'image')}"
    return Detector(name, next(partners, None), counts, drawings)


def _name(row: Row) -> str:
    return f"{row.name}, seed {row.seed}" if len(row.runs) > 1 else row.name


def _counts(images: Sequence[GalleryImage], of: Gallery) -> str:
    hits = sum(len(image.of("right")) for image in images)
    misses = sum(len(image.missed) for image in images)
    alarms = sum(len(image.of("wrong")) for image in images)
    found = [
        counted(hits, "hit"),
        counted(misses, "miss", "misses"),
        counted(alarms, "false alarm"),
    ]
    return f"{', '.join(found)} at IoU {of.iou:g}, score ≥ {of.score:g}"


def _details(image: GalleryImage) -> str:
    """Which kinds were missed, and what was taken for an object."""
    aside = sum(each.difficult for each in image.objects)
    parts = [
        ("Missed", _kinds(image.missed)),
        ("False alarms", _kinds(image.of("wrong"))),
        ("Difficult, not counted", str(aside) if aside else ""),
    ]
    sentences = [f"{name}: {found}." for name, found in parts if found]
    if len(image.of("wrong")) > MOST_DRAWN:
        sentences.append(f"The best {MOST_DRAWN} false alarms are drawn.")
    return " ".join(sentences)


def _kinds(boxes: Iterable[GalleryObject | GalleryDetection]) -> str:
    """How many of each kind, the most frequent first: ``2 ship, 1 plane``."""
    found = Counter(each.kind for each in boxes)
    return ", ".join(f"{number} {kind}" for kind, number in found.most_common())


def _svg(image: GalleryImage, detector: str, of: Gallery, picture: str, key: str) -> Markup:
    """Boxes drawn twice, first as a dark edge, so that they are visible on any background."""
    found = image.found
    hit = [each for at, each in enumerate(image.objects) if at in found]
    alarms = sorted(image.of("wrong"), key=lambda each: -each.score)[:MOST_DRAWN]
    difficult = [each for each in image.objects if each.difficult]
    near_it = [(each, f"on a difficult object, not counted: {_said(each)}") for each in image.of("aside")]
    groups = [
        _group("aside", [(each, f"difficult, not counted: {each.kind}") for each in difficult]),
        _group("aside", near_it),
        _group("label", [(each, f"label: {each.kind}") for each in hit]),
        _group("hit", [(each, f"hit: {_said(each)}") for each in image.of("right")]),
        _group("miss", [(each, f"missed: {each.kind}") for each in image.missed]),
        _group("alarm", [(each, f"false alarm: {_said(each)}") for each in alarms]),
        _marks("miss", image.missed, image),
        _marks("alarm", alarms, image),
    ]
    said = f"{_counts([image], of)}. {_details(image)}".strip()
    return Markup(
        f'<svg class="boxes" viewBox="0 0 {image.width} {image.height}" role="img"'
        f' aria-labelledby="{key}-title" aria-describedby="{key}-said">'
        f'<title id="{key}-title">{escape(f"{image.name}: labels and detections of {detector}")}</title>'
        f'<desc id="{key}-said">{escape(said)}</desc>'
        f'<use href="#{picture}"/><use href="#{key}" class="edge"/>'
        f'<g id="{key}" class="lines">{"".join(groups)}</g></svg>'
    )


def _said(each: GalleryDetection) -> str:
    return f"{each.kind}, score {each.score:.2f}"


def _group(kind: str, boxes: Sequence[tuple[GalleryObject | GalleryDetection, str]]) -> str:
    drawn = (f'<path d="{_path(each)}"><title>{escape(text)}</title></path>' for each, text in boxes)
    return f'<g class="{kind}">{"".join(drawn)}</g>' if boxes else ""


def _path(box: GalleryObject | GalleryDetection) -> str:
    return f"M{' '.join(f'{value:g}' for value in box.corners)}z"


def _marks(kind: str, boxes: Sequence[GalleryObject | GalleryDetection], image: GalleryImage) -> str:
    """In the middle of each box: a cross for a miss, a triangle for a false alarm."""
    size = max(2.0, MARK * max(image.width, image.height))
    one, two = f"{size:.1f}", f"{2 * size:.1f}"
    cross = f"m-{one} -{one}l{two} {two}m0 -{two}l-{two} {two}"
    triangle = f"m0 -{one}l{one} {two}h-{two}z"
    middles = ((sum(each.corners[::2]) / 4, sum(each.corners[1::2]) / 4) for each in boxes)
    drawn = "".join(f"M{x:.1f} {y:.1f}{cross if kind == 'miss' else triangle}" for x, y in middles)
    return f'<path class="{kind} mark" d="{drawn}"/>' if drawn else ""
