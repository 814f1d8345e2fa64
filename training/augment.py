"""From a drawing to a training picture: what must not matter to the model is drawn at random.

Few artists drew every emoji, so style must be washed out: pose, colours, light, outline, shadow,
background, blur, noise, JPEG. Everything works on a whole batch of premultiplied RGBA tensors and
draws from torch's global generator, whose state a checkpoint keeps.
"""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]  # CLIP's
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
_LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


def normalise(pixels: Tensor) -> Tensor:
    """Colours from 0 to 1 as the model takes them."""
    return (pixels - MEAN) / STD


def _uniform(n: int, low: float, high: float) -> Tensor:
    return torch.empty(n, 1, 1, 1).uniform_(low, high)


def _chance(n: int, probability: float) -> Tensor:
    """Per picture 1 or 0, (N, 1, 1, 1)."""
    return (torch.rand(n, 1, 1, 1) < probability).float()


def _smooth_noise(n: int, channels: int, cells: int, size: int) -> Tensor:
    return F.interpolate(torch.rand(n, channels, cells, cells), (size, size), mode="bilinear")


def _blurred(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _very_blurred(x: Tensor) -> Tensor:
    small = _blurred(_blurred(F.avg_pool2d(x, 4)))
    return F.interpolate(small, x.shape[-2:], mode="bilinear")


def pose(rgba: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Scale, proportions, rotation, shear, place and, where it may be, mirror image."""
    n = len(rgba)
    angle = torch.randn(n) * math.radians(9)
    scale = torch.exp(torch.empty(n).uniform_(math.log(0.62), math.log(1.12)))
    aspect = torch.exp(torch.randn(n) * 0.07)
    shear = torch.randn(n) * 0.06
    flip = 1 - 2 * (mirrored & (torch.rand(n) < 0.4)).float()
    cos, sin = torch.cos(angle), torch.sin(angle)
    linear = torch.stack([cos * flip, -sin + shear, sin * flip, cos], 1).view(n, 2, 2)
    linear = linear / torch.stack([scale * aspect, scale / aspect], 1)[:, :, None]
    room = (1 - scale).abs() + 0.08  # in half widths: hardly ever is much cut off
    shift = torch.empty(n, 2).uniform_(-1, 1) * (room / scale)[:, None]
    grid = F.affine_grid(torch.cat([linear, shift[:, :, None]], 2), [n, 4, size, size], False)
    return F.grid_sample(rgba, grid, align_corners=False)


def recolour(colour: Tensor, alpha: Tensor) -> Tensor:
    """Hue, saturation, contrast and brightness: one affine map of colour per picture."""
    n = len(colour)
    hue = torch.randn(n) * torch.where(torch.rand(n) < 0.15, 1.2, 0.12)
    saturation = torch.exp(torch.randn(n) * 0.25) * (torch.rand(n) > 0.08)  # some are grey
    contrast = torch.exp(torch.randn(n) * 0.15)
    grey = torch.full((3, 3), 1 / 3)
    turn = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # about the grey axis
    cos, sin = torch.cos(hue)[:, None, None], torch.sin(hue)[:, None, None]
    chroma = cos * (torch.eye(3) - grey) + sin * turn
    matrix = contrast[:, None, None] * (grey + saturation[:, None, None] * chroma)
    offset = 0.5 * (1 - contrast) + torch.randn(n) * 0.07
    mixed = torch.einsum("nij,njhw->nihw", matrix, colour) + offset[:, None, None, None] * alpha
    return mixed.clamp(min=0).minimum(alpha)


def shade(colour: Tensor, alpha: Tensor) -> Tensor:
    """Light from a random side, as if the drawing bulged, stronger or weaker or not at all."""
    n = len(colour)
    height = _very_blurred(alpha)
    dx = height - torch.roll(height, 2, 3)
    dy = height - torch.roll(height, 2, 2)
    angle = _uniform(n, 0, 2 * math.pi)
    light = (dx * torch.cos(angle) + dy * torch.sin(angle)) * _uniform(n, 0, 3)
    ramp = torch.linspace(-1, 1, colour.shape[-1])
    slope = ramp * torch.cos(angle) + ramp[:, None] * torch.sin(angle)
    factor = 1 + _chance(n, 0.5) * (light + slope * _uniform(n, 0, 0.25))
    return (colour * factor).clamp(min=0).minimum(alpha)


def border(colour: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Some are stickers: a white, black or coloured rim around the whole."""
    n = len(colour)
    width = 1 + int(torch.randint(2, ()))  # pixels, for the whole batch
    rim = (F.max_pool2d(alpha, 2 * width + 1, 1, width) - alpha) * _chance(n, 0.2)
    tint = torch.rand(n, 3, 1, 1)
    tint = torch.where(torch.rand(n, 1, 1, 1) < 0.7, tint[:, :1].round(), tint)
    return colour + rim * tint, alpha + rim


def background(n: int, size: int) -> Tensor:
    """White for every other picture; else a colour, a gradient or a texture."""
    kind = torch.rand(n, 1, 1, 1)
    flat = torch.rand(n, 3, 1, 1).expand(-1, -1, size, size)
    gradient = F.interpolate(torch.rand(n, 3, 2, 2), (size, size), mode="bilinear")
    texture = _smooth_noise(n, 3, 4, size) * 0.6 + _smooth_noise(n, 3, 16, size) * 0.4
    found = torch.where(kind < 0.7, flat, torch.where(kind < 0.85, gradient, texture))
    return torch.where(kind < 0.5, torch.ones(()), found).clamp(0, 1)


def composite(colour: Tensor, alpha: Tensor) -> Tensor:
    """Over a background, maybe with a shadow; what would vanish there gets white or dark grey."""
    n, size = len(colour), colour.shape[-1]
    behind = background(n, size)
    own = (colour * _LUMA).sum((1, 2, 3)) / alpha.sum((1, 2, 3)).clamp(min=1)
    other = (behind * _LUMA).sum(1).mean((1, 2))
    vanishes = ((own - other).abs() < 0.2)[:, None, None, None]
    contrasting = torch.where(own < 0.6, 1.0, 0.15)[:, None, None, None]
    behind = torch.where(vanishes, contrasting, behind)
    shadow = torch.roll(_very_blurred(alpha), (2, 1), (2, 3)) * _chance(n, 0.3) * _uniform(n, 0, 0.5)
    return colour + (1 - alpha) * behind * (1 - shadow)


def _jpeg(picture: Tensor) -> Tensor:
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    quality = int(torch.randint(25, 90, ()))
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255


def degrade(x: Tensor) -> Tensor:
    """Some are blurred, noisy or JPEGs."""
    n = len(x)
    x = torch.lerp(x, _blurred(x), _chance(n, 0.2) * _uniform(n, 0.3, 1))
    x = x + torch.randn_like(x) * _chance(n, 0.15) * _uniform(n, 0, 0.08)
    x = x.clamp(0, 1)
    for i in (torch.rand(n) < 0.15).nonzero().flatten():
        x[i] = _jpeg(x[i])
    return x


def occlude(x: Tensor) -> Tensor:
    """Some lose a rectangle of up to a third of each side."""
    n, size = len(x), x.shape[-1]
    at = torch.arange(size) + 0.5
    top, left = _uniform(n, 0, size), _uniform(n, 0, size)
    high, wide = _uniform(n, 0, size / 3), _uniform(n, 0, size / 3)
    rows = (at[:, None] > top) & (at[:, None] < top + high)
    columns = (at > left) & (at < left + wide)
    hidden = (rows & columns).float() * _chance(n, 0.2)
    return torch.lerp(x, torch.rand(n, 3, 1, 1), hidden)


def augment(drawings: Tensor, mirrored: Tensor, size: int = 64) -> Tensor:
    """Drawings (N, 4, S, S) uint8, premultiplied, to training pictures (N, 3, size, size)."""
    posed = pose(drawings.float() / 255, mirrored, size)
    alpha = posed[:, 3:]
    colour = recolour(posed[:, :3], alpha)
    colour, alpha = border(shade(colour, alpha), alpha)
    return normalise(occlude(degrade(composite(colour, alpha).clamp(0, 1))))


def plain(drawings: Tensor, size: int = 64) -> Tensor:
    """Drawings on white, as they are: what validation sees."""
    rgba = drawings.float() / 255
    white = rgba[:, :3] + 1 - rgba[:, 3:]
    small = F.interpolate(white, (size, size), mode="bicubic", align_corners=False, antialias=True)
    return normalise(small.clamp(0, 1))
