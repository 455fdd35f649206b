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
    wide = (torch.rand(count) < 0.12).float()
    angle = torch.randn(count) * (0.12 + 0.45 * wide)
    scale = 1.0 / (0.62 + 0.56 * torch.rand(count))
    stretch = torch.exp(0.12 * torch.randn(count))
    shear = 0.1 * torch.randn(count)
    mirror = 1 - 2 * ((torch.rand(count) < 0.35) & may_flip).float()
    cos, sin = torch.cos(angle), torch.sin(angle)
    x_row = torch.stack([mirror * scale * stretch * cos, mirror * scale * (shear - sin), 0.14 * torch.randn(count)], 1)
    y_row = torch.stack([scale / stretch * sin, scale / stretch * cos, 0.14 * torch.randn(count)], 1)
    grid = F.affine_grid(torch.stack([x_row, y_row], 1), [count, 4, size, size], align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)


def recolour(colour: Tensor) -> Tensor:
    """[B, 3, H, W]: gains, saturation (some grey), brightness, contrast, and now and then another hue."""
    count = len(colour)
    gain = torch.exp(0.12 * torch.randn(count, 3, 1, 1) * (1 + 2 * chance(count, 0.15)))
    grey = (colour * LUMA).sum(1, keepdim=True)
    saturation = between(count, 0.5, 1.6) * (1 - chance(count, 0.12))
    colour = (grey + saturation * (colour - grey)) * gain
    return ((colour - 0.5) * between(count, 0.65, 1.35) + 0.5 + between(count, -0.15, 0.15)).clamp(0, 1)


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
    """Dark strokes along the edges of shape and colour for half the pictures; for some of those the fill fades towards white."""
    count = len(colour)
    layers = torch.cat([colour * alpha, alpha], 1)
    edge = (grown(layers) + grown(-layers)).amax(1, keepdim=True)
    edge = torch.where(chance(count, 0.4) > 0, grown(edge), edge)
    stroke = ((edge - between(count, 0.15, 0.45)) * 5).clamp(0, 1) * chance(count, 0.5) * between(count, 0.6, 1)
    fade = chance(count, 0.3) * between(count, 0, 1) * (stroke.amax((1, 2, 3), keepdim=True) > 0)
    ink = between(count, 0, 0.2)
    colour = (colour + fade * (1 - colour)) * (1 - stroke) + ink * stroke
    return colour, torch.maximum(alpha, stroke)


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


def disturb(image: Tensor) -> Tensor:
    """Blur, noise, a patch covered."""
    count, _, size, _ = image.shape
    soft = F.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    image = image + chance(count, 0.2) * between(count, 0, 1) * (soft - image)
    image = image + 0.05 * chance(count, 0.25) * torch.randn_like(image)
    line = torch.arange(size)
    start, extent = torch.randint(0, size, (2, count, 1)), torch.randint(8, 28, (2, count, 1))
    inside = (line >= start) & (line < start + extent)
    covered = (inside[0][:, None, None, :] & inside[1][:, None, :, None]).float() * chance(count, 0.25)
    return image * (1 - covered) + torch.rand(count, 3, 1, 1) * covered


def augment(pixels: Tensor, may_flip: Tensor, inked: Tensor, size: int) -> Tensor:
    """uint8 [B, S, S, 4] straight alpha → normalised float32 [B, 3, size, size].

    may_flip [B]: mirroring keeps the meaning. inked [B]: a drawing in black only, which needs a light ground (or all of it inverted).
    """
    count = len(pixels)
    straight = pixels.permute(0, 3, 1, 2).float() / 255
    posed = pose(torch.cat([straight[:, :3] * straight[:, 3:], straight[:, 3:]], 1), may_flip, size)
    alpha = posed[:, 3:]
    colour = recolour((posed[:, :3] / alpha.clamp_min(1e-3)).clamp(0, 1))
    mono = inked.view(-1, 1, 1, 1).float()
    colour = torch.where(mono * chance(count, 0.4) > 0, 0.6 * torch.rand(count, 3, 1, 1).expand_as(colour), colour)
    colour, alpha = outline(colour, alpha)
    ground = backgrounds(count, size)
    ground = torch.where(mono > 0, 0.6 + 0.4 * ground, ground)
    image = colour * alpha + ground * (1 - alpha)
    inverted = mono * chance(count, 0.2)
    image = disturb(image + inverted * (1 - 2 * image))
    return (image - MEAN) / STD


def upright(pixels: Tensor, size: int) -> Tensor:
    """As augment, without chance: on white, filling the picture. For held-out drawings."""
    straight = pixels.permute(0, 3, 1, 2).float() / 255
    image = straight[:, :3] * straight[:, 3:] + 1 - straight[:, 3:]
    image = F.interpolate(image, size=(size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    return (image - MEAN) / STD
