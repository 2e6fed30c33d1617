"""Global-query attention: pooling that is deterministic on a GPU gives the same as PyTorch's."""

from __future__ import annotations

import pytest
import torch

from tiltbox.model.attention import GlobalQueryAttention


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("height", "width", "size"), [(16, 16, 8), (20, 13, 8), (5, 5, 8), (32, 64, 1)])
def test_deterministic_pooling_gives_the_same_outputs_and_gradients(height, width, size, request):
    torch.manual_seed(0)
    attention = GlobalQueryAttention(12, size).double()
    query = torch.randn(3, size**2, dtype=torch.float64)
    found = []
    for fixture in (None, "deterministic"):
        if fixture:
            request.getfixturevalue(fixture)
        draw = torch.Generator().manual_seed(1)
        x = torch.randn(2, 12, height, width, dtype=torch.float64, generator=draw).requires_grad_()
        output = attention(x, query)
        (gradient,) = torch.autograd.grad(output.square().sum(), x)
        found.append((output.detach(), gradient))
    for ours, expected in zip(found[1], found[0], strict=True):
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-9)
