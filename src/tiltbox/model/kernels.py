"""Triton kernels for what PyTorch does slowly on a GPU: depth-wise convolutions and batch norm in training.

Maps are (b, c, h, w), contiguous, in single or half precision; sums are in single precision. Tests run the
kernels on a CPU, in Triton's interpreter, which is why loops have constant bounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from tiltbox.model import on_gpu

TILE = 1024  # pixels of a program
CHUNK = 16  # tiles that one program adds up for batch norm

constexpr = tl.constexpr
SILU, LEAKY = constexpr(on_gpu.SILU), constexpr(on_gpu.LEAKY)


@triton.jit
def _depthwise(
    x, weight, y, height, width, inputs, columns,
    EACH: constexpr, PADDED: constexpr, SIDE: constexpr, H: constexpr, W: constexpr,
):  # fmt: skip
    """Grid (images x inputs, tiles): a tile of the outputs of one input channel."""
    plane = tl.program_id(0).to(tl.int64)
    row = ((tl.program_id(1) // columns) * H + tl.arange(0, H))[None, :, None]
    column = ((tl.program_id(1) % columns) * W + tl.arange(0, W))[None, None, :]
    each = tl.arange(0, PADDED)[:, None, None]
    kernels = weight + ((plane % inputs) * EACH + each) * SIDE * SIDE
    found = tl.zeros((PADDED, H, W), tl.float32)
    for i in range(SIDE):
        r = row + i - SIDE // 2
        for j in tl.static_range(SIDE):
            c = column + j - SIDE // 2
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            cells = tl.load(x + plane * height * width + r * width + c, mask=inside, other=0.0)
            values = tl.load(kernels + i * SIDE + j, mask=each < EACH, other=0.0)
            found += cells.to(tl.float32) * values.to(tl.float32)
    place = y + ((plane * EACH + each) * height + row) * width + column
    inside = (each < EACH) & (row < height) & (column < width)
    tl.store(place, found.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _depthwise_inputs(
    gradient, weight, out, height, width, inputs, columns,
    EACH: constexpr, SIDE: constexpr, H: constexpr, W: constexpr,
):  # fmt: skip
    """Grid (images x inputs, tiles): the gradient of a tile of one input channel."""
    plane = tl.program_id(0).to(tl.int64)
    channel = (plane % inputs).to(tl.int32)
    row = (tl.program_id(1) // columns) * H + tl.arange(0, H)[:, None]
    column = (tl.program_id(1) % columns) * W + tl.arange(0, W)[None, :]
    found = tl.zeros((H, W), tl.float32)
    for i in range(SIDE):
        r = row - i + SIDE // 2
        for j in tl.static_range(SIDE):
            c = column - j + SIDE // 2
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            for each in tl.static_range(EACH):
                cells = gradient + (plane * EACH + each) * height * width + r * width + c
                kernel = weight + ((channel * EACH + each) * SIDE + i) * SIDE + j
                found += tl.load(cells, mask=inside, other=0.0).to(tl.float32) * tl.load(kernel).to(
                    tl.float32
                )
    place = out + plane * height * width + row * width + column
    tl.store(place, found.to(out.dtype.element_ty), mask=(row < height) & (column < width))


@triton.jit
def _depthwise_weights(
    x, gradient, out, height, width, inputs,
    EACH: constexpr, PADDED: constexpr, SIDE: constexpr, SIDE_PADDED: constexpr,
    BLOCK: constexpr, STEPS: constexpr,
):  # fmt: skip
    """Grid (inputs, kernel rows, images): what an image adds to a row of an input channel's kernels."""
    i, plane = tl.program_id(1), tl.program_id(2).to(tl.int64) * inputs + tl.program_id(0)
    each = tl.arange(0, PADDED)[:, None, None]
    j = tl.arange(0, SIDE_PADDED)[None, None, :]
    found = tl.zeros((PADDED, BLOCK, SIDE_PADDED), tl.float32)
    for step in range(STEPS):
        pixel = (step * BLOCK + tl.arange(0, BLOCK))[None, :, None]
        r, c = pixel // width + i - SIDE // 2, pixel % width + j - SIDE // 2
        real = pixel < height * width
        inside = real & (r >= 0) & (r < height) & (c >= 0) & (c < width) & (j < SIDE)
        cells = tl.load(x + plane * height * width + r * width + c, mask=inside, other=0.0)
        place = gradient + (plane * EACH + each) * height * width + pixel
        slopes = tl.load(place, mask=real & (each < EACH), other=0.0)
        found += cells.to(tl.float32) * slopes.to(tl.float32)
    each = tl.arange(0, PADDED)[:, None]
    j = tl.arange(0, SIDE_PADDED)[None, :]
    place = out + ((plane * EACH + each) * SIDE + i) * SIDE + j
    tl.store(place, tl.sum(found, 1), mask=(each < EACH) & (j < SIDE))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        images, inputs, height, width = x.shape
        each, side = len(weight) // inputs, weight.shape[-1]
        ctx.save_for_backward(x, weight)
        y = x.new_empty(images, len(weight), height, width)
        tile, columns, tiles = _tiles(height, width)
        _depthwise[images * inputs, tiles](
            *(x, weight, y, height, width, inputs, columns),
            *(each, triton.next_power_of_2(each), side, *tile),
        )
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gradient = gradients[0].contiguous()
        x, weight = ctx.saved_tensors
        images, inputs, height, width = x.shape
        each, side = len(weight) // inputs, weight.shape[-1]
        of_x = torch.empty_like(x)
        tile, columns, tiles = _tiles(height, width)
        _depthwise_inputs[images * inputs, tiles](
            gradient, weight, of_x, height, width, inputs, columns, each, side, *tile
        )
        of_weight = x.new_empty(images, *weight.shape, dtype=torch.float32)
        block = TILE // 4
        _depthwise_weights[inputs, side, images](
            *(x, gradient, of_weight, height, width, inputs, each, triton.next_power_of_2(each)),
            *(side, triton.next_power_of_2(side), block, triton.cdiv(height * width, block)),
        )
        return of_x, of_weight.sum(0).to(weight.dtype)


def depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Depth-wise convolution at stride 1 that keeps the size of the map.

    Args:
        x: (b, c, h, w).
        weight: (c * each, 1, k, k), k odd; output ``each * i + j`` is the j-th of input channel i.
    """
    return _Depthwise.apply(x, weight)


def _tiles(height: int, width: int) -> tuple[tuple[int, int], int, int]:
    """Height and width of a tile, tiles in a row, and in all."""
    across = min(triton.next_power_of_2(width), 128)
    down = min(TILE // across, triton.next_power_of_2(height))
    columns = triton.cdiv(width, across)
    return (down, across), columns, columns * triton.cdiv(height, down)


@triton.jit
def _activated(u, KIND: constexpr, leak):
    if KIND == SILU:
        return u * tl.sigmoid(u)
    elif KIND == LEAKY:
        return tl.where(u > 0, u, u * leak)
    else:
        return u


@triton.jit
def _activation_slope(u, KIND: constexpr, leak):
    if KIND == SILU:
        sigmoid = tl.sigmoid(u)
        return sigmoid * (1 + u * (1 - sigmoid))
    elif KIND == LEAKY:
        return tl.where(u > 0, 1.0, leak)
    else:
        return tl.full(u.shape, 1.0, tl.float32)


@triton.jit
def _sums(x, out, channels, pixels, parts, BLOCK: constexpr, STEPS: constexpr):
    """Grid (channels, images, chunks): sums of values and squares, from the channel's first value on.

    Without that offset, squares of values far from 0 would cost the digits of the variance.
    """
    channel, image, chunk = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    offset = tl.load(x + channel.to(tl.int64) * pixels).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    squares = tl.zeros((BLOCK,), tl.float32)
    for step in range(STEPS):
        pixel = (chunk * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        inside = pixel < pixels
        value = tl.load(x + (image * channels + channel) * pixels + pixel, mask=inside, other=0.0)
        value = tl.where(inside, value.to(tl.float32) - offset, 0.0)
        total += value
        squares += value * value
    place = out + channel * 2 * parts + tl.program_id(1) * tl.num_programs(2) + chunk
    tl.store(place, tl.sum(total, 0))
    tl.store(place + parts, tl.sum(squares, 0))


@triton.jit
def _statistics(
    sums, x, found, mean, variance, steps, channels, pixels, parts, number, momentum, epsilon,
    BLOCK: constexpr,
):  # fmt: skip
    """Grid (channels): mean and inverse deviation, and the running averages of mean and variance."""
    channel = tl.program_id(0)
    part = tl.arange(0, BLOCK)
    inside = part < parts
    offset = tl.load(x + channel.to(tl.int64) * pixels).to(tl.float32)
    first = tl.sum(tl.load(sums + channel * 2 * parts + part, mask=inside, other=0.0), 0) / number
    second = tl.sum(tl.load(sums + (channel * 2 + 1) * parts + part, mask=inside, other=0.0), 0) / number
    spread = tl.maximum(second - first * first, 0.0)
    tl.store(found + channel, offset + first)
    tl.store(found + channels + channel, 1 / tl.sqrt(spread + epsilon))
    old = tl.load(mean + channel)
    tl.store(mean + channel, old + momentum * (offset + first - old))
    old = tl.load(variance + channel)
    tl.store(variance + channel, old + momentum * (spread * number / (number - 1) - old))
    if channel == 0:
        tl.store(steps, tl.load(steps) + 1)


@triton.jit
def _normalized(
    x, y, statistics, weight, bias, channels, pixels, leak, KIND: constexpr, BLOCK: constexpr
):  # fmt: skip
    """Grid (images x channels, tiles)."""
    plane = tl.program_id(0).to(tl.int64)
    channel = (plane % channels).to(tl.int32)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    factor = tl.load(statistics + channels + channel) * tl.load(weight + channel)
    value = tl.load(x + plane * pixels + pixel, mask=inside, other=0.0).to(tl.float32)
    u = (value - tl.load(statistics + channel)) * factor + tl.load(bias + channel)
    tl.store(y + plane * pixels + pixel, _activated(u, KIND, leak).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _gradient_sums(
    x, gradient, out, statistics, weight, bias, channels, pixels, parts, leak,
    KIND: constexpr, BLOCK: constexpr, STEPS: constexpr,
):  # fmt: skip
    """Grid (channels, images, chunks): the sums that are the gradients of bias and weight."""
    channel, image, chunk = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    mean, inverse = tl.load(statistics + channel), tl.load(statistics + channels + channel)
    factor, shift = tl.load(weight + channel), tl.load(bias + channel)
    of_bias = tl.zeros((BLOCK,), tl.float32)
    of_weight = tl.zeros((BLOCK,), tl.float32)
    for step in range(STEPS):
        pixel = (chunk * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        inside = pixel < pixels
        place = (image * channels + channel) * pixels + pixel
        z = (tl.load(x + place, mask=inside, other=0.0).to(tl.float32) - mean) * inverse
        slope = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        slope *= _activation_slope(z * factor + shift, KIND, leak)
        of_bias += slope
        of_weight += slope * z
    place = out + channel * parts + tl.program_id(1) * tl.num_programs(2) + chunk
    tl.store(place, tl.sum(of_bias, 0))
    tl.store(place + channels * parts, tl.sum(of_weight, 0))


@triton.jit
def _normalized_inputs(
    x, gradient, out, statistics, weight, bias, sums, channels, pixels, number, leak,
    KIND: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """Grid (images x channels, tiles): the gradient of the inputs; ``sums`` are those of bias and weight."""
    plane = tl.program_id(0).to(tl.int64)
    channel = (plane % channels).to(tl.int32)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    inverse, factor = tl.load(statistics + channels + channel), tl.load(weight + channel)
    value = tl.load(x + plane * pixels + pixel, mask=inside, other=0.0).to(tl.float32)
    z = (value - tl.load(statistics + channel)) * inverse
    slope = tl.load(gradient + plane * pixels + pixel, mask=inside, other=0.0).to(tl.float32)
    slope *= _activation_slope(z * factor + tl.load(bias + channel), KIND, leak)
    of_bias, of_weight = tl.load(sums + channel), tl.load(sums + channels + channel)
    found = (slope - (of_bias + z * of_weight) / number) * inverse * factor
    tl.store(out + plane * pixels + pixel, found.to(out.dtype.element_ty), mask=inside)


class Norm(NamedTuple):
    """How batch norm computes, apart from its weights.

    ``running`` are the averages of mean and variance (c,), and the number of steps; they are updated.
    ``activation`` is its kind, as :mod:`tiltbox.model.on_gpu` numbers them, and its slope below 0 if LEAKY.
    """

    running: tuple[Tensor, Tensor, Tensor]
    momentum: float
    epsilon: float
    activation: tuple[int, float]


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: Norm) -> Tensor:
        x = x.contiguous()
        images, channels, height, width = x.shape
        pixels, number = height * width, images * height * width
        block, steps, chunks = _chunks(pixels)
        parts = images * chunks
        sums = x.new_empty(channels, 2, parts, dtype=torch.float32)
        _sums[channels, images, chunks](x, sums, channels, pixels, parts, block, steps)
        found = x.new_empty(2, channels, dtype=torch.float32)
        _statistics[channels,](
            *(sums, x, found, *norm.running, channels, pixels, parts, number, norm.momentum, norm.epsilon),
            triton.next_power_of_2(parts),
        )
        y = torch.empty_like(x)
        kind, leak = norm.activation
        grid = (images * channels, triton.cdiv(pixels, block))
        _normalized[grid](x, y, found, weight, bias, channels, pixels, leak, kind, block)
        ctx.save_for_backward(x, found, weight, bias)
        ctx.activation = norm.activation
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        x, found, weight, bias = ctx.saved_tensors
        kind, leak = ctx.activation
        images, channels, height, width = x.shape
        pixels = height * width
        block, steps, chunks = _chunks(pixels)
        parts = images * chunks
        sums = x.new_empty(2, channels, parts, dtype=torch.float32)
        _gradient_sums[channels, images, chunks](
            *(x, gradient, sums, found, weight, bias, channels, pixels, parts, leak), kind, block, steps
        )
        of_bias, of_weight = totals = sums.sum(-1)
        of_x = torch.empty_like(x)
        _normalized_inputs[images * channels, triton.cdiv(pixels, block)](
            *(x, gradient, of_x, found, weight, bias, totals, channels, pixels, images * pixels, leak),
            *(kind, block),
        )
        return of_x, of_weight, of_bias, None


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, norm: Norm) -> Tensor:
    """Batch norm in training, with the activation, of maps (b, c, h, w) of two or more values a channel."""
    return _BatchNorm.apply(x, weight, bias, norm)


def _chunks(pixels: int) -> tuple[int, int, int]:
    """Pixels of a tile, tiles of a chunk, chunks of a plane."""
    block = min(TILE, triton.next_power_of_2(pixels))
    steps = min(CHUNK, triton.cdiv(pixels, block))
    return block, steps, triton.cdiv(pixels, block * steps)
