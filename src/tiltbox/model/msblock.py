"""The MS-Block of YOLO-MS: branches with growing receptive fields, each of which feeds the next.

Source: Chen et al., "YOLO-MS: Rethinking Multi-Scale Representation Learning for Real-time Object
Detection", arXiv:2308.05480. Attribute names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tiltbox.model import depthwise  # noqa: F401  (registers)
from tiltbox.model.attention import GlobalQueryAttention
from tiltbox.model.layers import BN, conv
from tiltbox.model.variant import Config


class BottleneckLayer(nn.Sequential):
    """1x1 to the wider inner channels, depth-wise k x k there, 1x1 back."""

    def __init__(self, channels: int, inner: int, kernel: int, norm: Config) -> None:
        super().__init__()
        self.in_conv = conv(channels, inner, 1, norm=norm)
        self.mid_conv = conv(inner, inner, kernel, groups=inner, norm=norm)
        self.out_conv = conv(inner, channels, 1, norm=norm)


class KxkThen1x1Layer(nn.Sequential):
    """Depth-wise k x k that widens to the inner channels, then 1x1 back."""

    def __init__(self, channels: int, inner: int, kernel: int, norm: Config) -> None:
        super().__init__()
        kind = "WideningDepthwiseConv"
        self.in_conv = conv(channels, inner, kernel, groups=channels, kind=kind, norm=norm)
        self.out_conv = conv(inner, channels, 1, norm=norm)


LAYERS = {"bottleneck": BottleneckLayer, "kxk_1x1": KxkThen1x1Layer}


class MSBlock(nn.Module):
    """Splits the channels into three equal branches, convolves two of them, and joins them again.

    Args:
        inputs, outputs: Channels in and out.
        branch: Channels of one branch.
        kernels: Kernel sizes of the second and third branch; the first passes its input on.
        layer: ``bottleneck`` or ``kxk_1x1``.
        layers: Layers per convolved branch.
        start_branch: Branches from this one on (0-based) add the output of the previous branch.
        query_size: Side of the pooled map for global-query attention; None leaves the attention out.
        norm: Of every convolution.

    Shape: (b, inputs, h, w) and queries (3, query_size**2) to (b, outputs, h, w).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        branch: int,
        kernels: Sequence[int],
        *,
        layer: str,
        layers: int,
        start_branch: int,
        query_size: int | None = None,
        norm: Config = BN,
    ) -> None:
        super().__init__()
        self.branch, self.start_branch = branch, start_branch
        self.in_conv = conv(inputs, 3 * branch, 1, norm=norm)
        convolved = [
            nn.Sequential(*(LAYERS[layer](branch, 2 * branch, kernel, norm) for _ in range(layers)))
            for kernel in kernels
        ]
        self.mid_convs = nn.ModuleList([nn.Identity(), *convolved])
        self.attention = GlobalQueryAttention(3 * branch, query_size) if query_size else None
        self.out_conv = conv(3 * branch, outputs, 1, norm=norm)

    def forward(self, x: Tensor, query: Tensor | None = None) -> Tensor:
        outputs: list[Tensor] = []
        for index, part in enumerate(self.in_conv(x).split(self.branch, dim=1)):
            summed = part + outputs[-1] if index >= self.start_branch else part
            outputs.append(self.mid_convs[index](summed))
        joined = torch.cat(outputs, dim=1)
        if self.attention is not None:
            joined = self.attention(joined, query)
        return self.out_conv(joined)
