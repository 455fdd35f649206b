"""Turns drawings into training pictures: pose, colours, outlines, backgrounds. All on batches, float32, values 0 … 1."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def chance(count: int, probability: float) -> Tensor:
    """[count, 1, 1, 1] of 0 and 1"""
    return (torch.rand(count, 1, 1, 1) < probability).float()


def between(count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, 1, 1)


def pose(pixels: Tensor, may_flip: Tensor, size: int) -> Tensor:
    """[B, 4, S, S] premultiplied → [B, 4, size, size]: rotated, scaled, stretched, sheared, moved, mirrored where may_flip."""
    count = len(pixels)
    angle = torch.randn(count) * 0.12
    scale = 1.0 / (0.75 + 0.4 * torch.rand(count))
    stretch = torch.exp(0.08 * torch.randn(count))
    shear = 0.06 * torch.randn(count)
    mirror = 1 - 2 * ((torch.rand(count) < 0.35) & may_flip).float()
    cos, sin = torch.cos(angle), torch.sin(angle)
    x_row = torch.stack([mirror * scale * stretch * cos, mirror * scale * (shear - sin), 0.08 * torch.randn(count)], 1)
    y_row = torch.stack([scale / stretch * sin, scale / stretch * cos, 0.08 * torch.randn(count)], 1)
    grid = F.affine_grid(torch.stack([x_row, y_row], 1), [count, 4, size, size], align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)


def recolour(colour: Tensor) -> Tensor:
    """[B, 3, H, W]: gains of the channels, saturation, contrast, brightness."""
    count = len(colour)
    gain = torch.exp(0.08 * torch.randn(count, 3, 1, 1))
    grey = (colour * LUMA).sum(1, keepdim=True)
    colour = (grey + between(count, 0.5, 1.4) * (colour - grey)) * gain
    return ((colour - 0.5) * between(count, 0.75, 1.25) + 0.5 + between(count, -0.1, 0.1)).clamp(0, 1)


def grown(x: Tensor) -> Tensor:
    """The largest value among each pixel and its eight neighbours; shifted maxima, ten times faster than max_pool2d on a CPU."""
    rows = x.clone()
    rows[:, :, 1:] = torch.maximum(rows[:, :, 1:], x[:, :, :-1])
    rows[:, :, :-1] = torch.maximum(rows[:, :, :-1], x[:, :, 1:])
    both = rows.clone()
    both[..., 1:] = torch.maximum(both[..., 1:], rows[..., :-1])
    both[..., :-1] = torch.maximum(both[..., :-1], rows[..., 1:])
    return both


def outline(colour: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """A dark line around every shape."""
    edge = grown(alpha)
    return colour * alpha / edge.clamp_min(1e-3), edge


def backgrounds(count: int, size: int) -> Tensor:
    """[count, 3, size, size]: half of them white or nearly, the others one colour, a gradient, or blotches."""
    first, second = torch.rand(count, 3, 1, 1), torch.rand(count, 3, 1, 1)
    line = torch.linspace(0, 1, size)
    turn = 2 * math.pi * torch.rand(count, 1, 1, 1)
    ramp = (0.5 + torch.cos(turn) * (line.view(1, 1, 1, -1) - 0.5) + torch.sin(turn) * (line.view(1, 1, -1, 1) - 0.5)).clamp(0, 1)
    blotches = F.interpolate(torch.rand(count, 3, 5, 5), size=(size, size), mode="bilinear", align_corners=False)
    which = torch.rand(count, 1, 1, 1)
    mixed = torch.where(which < 0.5, ramp.expand(-1, 3, -1, -1), blotches)
    plain = torch.where(which < 0.2, torch.zeros(1), mixed)
    coloured = first + (second - first) * plain
    return torch.where(chance(count, 0.5) > 0, 1 - 0.08 * first * chance(count, 0.5), coloured)


def augment(pixels: Tensor, may_flip: Tensor, size: int) -> Tensor:
    """uint8 [B, S, S, 4] straight alpha → normalised float32 [B, 3, size, size]. may_flip [B]: mirroring keeps the meaning."""
    straight = pixels.permute(0, 3, 1, 2).float() / 255
    posed = pose(torch.cat([straight[:, :3] * straight[:, 3:], straight[:, 3:]], 1), may_flip, size)
    alpha = posed[:, 3:]
    colour = recolour((posed[:, :3] / alpha.clamp_min(1e-3)).clamp(0, 1))
    lined = len(pixels) // 3  # OpenMoji and many drawings have one; the order of pictures is random
    dark, wide = outline(colour[:lined], alpha[:lined])
    colour, alpha = torch.cat([dark, colour[lined:]]), torch.cat([wide, alpha[lined:]])
    image = colour * alpha + backgrounds(len(pixels), size) * (1 - alpha)
    return (image - MEAN) / STD


def upright(pixels: Tensor, size: int) -> Tensor:
    """As augment, without chance: on white, filling the picture. For held-out drawings."""
    straight = pixels.permute(0, 3, 1, 2).float() / 255
    image = straight[:, :3] * straight[:, 3:] + 1 - straight[:, 3:]
    image = F.interpolate(image, size=(size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    return (image - MEAN) / STD
