"""Which images a training process sees, and when."""

from __future__ import annotations

import pytest

from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from tiltbox.training.order import ShuffledOrder  # noqa: E402


def orders(images: int, processes: int, monkeypatch, seed: int = 0) -> list[ShuffledOrder]:
    """The order of each process."""
    found = []
    for rank in range(processes):
        monkeypatch.setattr("tiltbox.training.order.get_dist_info", lambda rank=rank: (rank, processes))
        found.append(ShuffledOrder(range(images), seed))
    return found


@pytest.mark.parametrize(("images", "processes"), [(1, 1), (7, 1), (8, 2), (7, 2), (1, 3)])
def test_every_image_once(images, processes, monkeypatch):
    """In all processes together; those that all need to have as many are shown twice."""
    shares = [list(order) for order in orders(images, processes, monkeypatch)]
    assert {len(share) for share in shares} == {-(-images // processes)} == {len(order) for order in shares}
    shown = [place for share in shares for place in share]
    assert {epoch for epoch, _ in shown} == {0}
    assert {index for _, index in shown} == set(range(images))


def test_another_order_in_each_epoch_and_for_each_seed(monkeypatch):
    (order,), (other,) = orders(20, 1, monkeypatch), orders(20, 1, monkeypatch, seed=1)
    first = list(order)
    order.start_at(1, 0)
    second = list(order)
    assert {epoch for epoch, _ in second} == {1}
    other.start_at(0, 0)
    permutations = [[index for _, index in each] for each in (first, second, list(other))]
    assert len({tuple(each) for each in permutations}) == 3
    order.start_at(0, 0)
    assert list(order) == first


@pytest.mark.parametrize("shown", [0, 1, 3, 4])
def test_the_rest_of_an_epoch(monkeypatch, shown):
    """Its length is that of the whole epoch, by which steps are counted."""
    for order in orders(7, 2, monkeypatch):
        order.start_at(2, 0)
        whole = list(order)
        order.start_at(2, shown)
        assert list(order) == whole[shown:] and len(order) == len(whole) == 4
