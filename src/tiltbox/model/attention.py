"""Global-query attention, which the current generation of YOLO-MS adds to its MS-Blocks."""

from __future__ import annotations

from torch import Tensor, nn

QUERIES = 3  # one per branch of the MS-Block


class GlobalQueryAttention(nn.Module):
    """Weights channels by how well a pooled one-channel view of the map answers shared queries.

    Args:
        channels: Channels of the map, a multiple of three.
        size: Side of the pooled view.

    Shape: map (b, channels, h, w) and queries (3, size**2) to (b, channels, h, w). Channel c is
    scaled by the answer to query c mod 3, as the published weights were trained.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(size)
        self.down_conv = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        view = self.down_conv(self.pool(x)).flatten(1)
        answers = (view @ query.T).sigmoid()
        return x * answers.repeat(1, x.shape[1] // QUERIES)[:, :, None, None]
