"""The MS-Block of YOLO-MS: branches with growing receptive fields, each of which feeds the next.

Source: Chen et al., "YOLO-MS: Rethinking Multi-Scale Representation Learning for Real-time Object
Detection", arXiv:2308.05480. Attribute names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from tiltbox.model.attention import GlobalQueryAttention

BN = {"type": "BN"}
SILU = {"type": "SiLU", "inplace": True}


@MODELS.register_module()
class WideningDepthwiseConv(nn.Conv2d):
    """Depth-wise convolution with several outputs per channel, at stride 1; bits and keys are ``Conv2d``'s.

    On CPUs, PyTorch uses its depth-wise kernels only if there are as many outputs as inputs. So there is one
    such convolution for the first output of every channel, one for the second, and so on.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu:
            return super().forward(x)
        each = self.out_channels // self.in_channels
        weights = self.weight.unflatten(0, (-1, each)).unbind(1)
        parts = [
            nn.functional.conv2d(x, weight, padding=self.padding, groups=self.groups) for weight in weights
        ]
        # Joined along the channels, so that a channels-last map stays channels-last.
        return torch.stack([part.movedim(1, -1) for part in parts], dim=-1).flatten(-2).movedim(-1, 1)


def conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, kind: str = "Conv2d"
) -> ConvModule:
    """Convolution, batch norm, SiLU; padded to keep the map's size at stride 1."""
    return ConvModule(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        conv_cfg={"type": kind},
        norm_cfg=BN,
        act_cfg=SILU,
    )


class BottleneckLayer(nn.Sequential):
    """1x1 to the wider inner channels, depth-wise k x k there, 1x1 back."""

    def __init__(self, channels: int, inner: int, kernel: int) -> None:
        super().__init__()
        self.in_conv = conv(channels, inner, 1)
        self.mid_conv = conv(inner, inner, kernel, groups=inner)
        self.out_conv = conv(inner, channels, 1)


class KxkThen1x1Layer(nn.Sequential):
    """Depth-wise k x k that widens to the inner channels, then 1x1 back."""

    def __init__(self, channels: int, inner: int, kernel: int) -> None:
        super().__init__()
        self.in_conv = conv(channels, inner, kernel, groups=channels, kind="WideningDepthwiseConv")
        self.out_conv = conv(inner, channels, 1)


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
    ) -> None:
        super().__init__()
        self.branch, self.start_branch = branch, start_branch
        self.in_conv = conv(inputs, 3 * branch, 1)
        convolved = [
            nn.Sequential(*(LAYERS[layer](branch, 2 * branch, kernel) for _ in range(layers)))
            for kernel in kernels
        ]
        self.mid_convs = nn.ModuleList([nn.Identity(), *convolved])
        self.attention = GlobalQueryAttention(3 * branch, query_size) if query_size else None
        self.out_conv = conv(3 * branch, outputs, 1)

    def forward(self, x: Tensor, query: Tensor | None = None) -> Tensor:
        outputs: list[Tensor] = []
        for index, part in enumerate(self.in_conv(x).split(self.branch, dim=1)):
            if index >= self.start_branch:
                part = part + outputs[-1]
            outputs.append(self.mid_convs[index](part))
        joined = torch.cat(outputs, dim=1)
        if self.attention is not None:
            joined = self.attention(joined, query)
        return self.out_conv(joined)
