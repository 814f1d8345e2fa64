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

from aimv2_np.images import CLIP_MEAN, CLIP_STD

_LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


def normalise(pixels: Tensor) -> Tensor:
    """Colours from 0 to 1 as the model takes them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def _uniform(n: int, low: float, high: float) -> Tensor:
    return torch.empty(n, 1, 1, 1).uniform_(low, high)


def _some(n: int, probability: float) -> Tensor:
    """The indices of the pictures that an effect is for."""
    return (torch.rand(n) < probability).nonzero().flatten()


def _coarse(n: int, cells: int, size: int) -> Tensor:
    """Random colours on a coarse grid, smoothly in between."""
    return F.interpolate(torch.rand(n, 3, cells, cells), (size, size), mode="bilinear")


def _blurred(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _very_blurred(x: Tensor) -> Tensor:
    small = _blurred(_blurred(F.avg_pool2d(x, 4)))
    return F.interpolate(small, x.shape[-2:], mode="bilinear")


def _bent(n: int, size: int) -> Tensor:
    """A smooth random shift of every point (N, size, size, 2): proportions vary among artists."""
    strength = _uniform(n, 0, 0.06)  # standard deviation, in half widths
    shift = F.interpolate(torch.randn(n, 2, 4, 4), (size, size), mode="bicubic") * strength
    return shift.permute(0, 2, 3, 1)


def pose(rgba: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Scale, proportions, rotation, shear, bend, place and, where it may be, mirror image."""
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
    grid = grid + _bent(n, size)
    return F.grid_sample(rgba, grid, align_corners=False)


def tint(colour: Tensor, alpha: Tensor) -> Tensor:
    """Drawings in black alone, as most icons are: half of them get a colour."""
    black = (colour.amax((1, 2, 3)) < 0.02).nonzero().flatten()
    black = black[torch.rand(len(black)) < 0.5]
    return colour.index_copy(0, black, torch.rand(len(black), 3, 1, 1) * alpha[black])


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
    """Half are lit from a random side, as if the drawing bulged."""
    some = _some(len(colour), 0.5)
    n, inside = len(some), alpha[some]
    height = _very_blurred(inside)
    dx = height - torch.roll(height, 2, 3)
    dy = height - torch.roll(height, 2, 2)
    angle = _uniform(n, 0, 2 * math.pi)
    light = (dx * torch.cos(angle) + dy * torch.sin(angle)) * _uniform(n, 0, 3)
    ramp = torch.linspace(-1, 1, colour.shape[-1])
    slope = ramp * torch.cos(angle) + ramp[:, None] * torch.sin(angle)
    lit = colour[some] * (1 + light + slope * _uniform(n, 0, 0.25))
    return colour.index_copy(0, some, lit.clamp(min=0).minimum(inside))


def border(rgba: Tensor) -> Tensor:
    """Some are stickers: a white, black or coloured rim around the whole."""
    some = _some(len(rgba), 0.2)
    alpha = rgba[some, 3:]
    width = 1 + int(torch.randint(2, ()))  # pixels, for the whole batch
    rim = F.max_pool2d(alpha, 2 * width + 1, 1, width) - alpha
    tint = torch.rand(len(some), 3, 1, 1)
    tint = torch.where(torch.rand(len(some), 1, 1, 1) < 0.7, tint[:, :1].round(), tint)
    return rgba.index_add(0, some, torch.cat([rim * tint, rim], 1))


def background(n: int, size: int) -> Tensor:
    """White for every other picture; else a colour, a gradient or a texture."""
    kind = torch.rand(n)
    behind = torch.where(kind < 0.5, 1.0, torch.rand(3, n)).T[:, :, None, None]
    behind = behind.repeat(1, 1, size, size)
    gradient, texture = ((low < kind).nonzero().flatten() for low in (0.7, 0.85))
    behind[gradient] = _coarse(len(gradient), 2, size)
    behind[texture] = 0.6 * _coarse(len(texture), 4, size) + 0.4 * _coarse(len(texture), 16, size)
    return behind


def shadow(alpha: Tensor) -> Tensor:
    """What a shadow leaves of the light behind the drawing; most cast none."""
    some = _some(len(alpha), 0.3)
    dark = torch.roll(_very_blurred(alpha[some]), (2, 1), (2, 3)) * _uniform(len(some), 0, 0.5)
    return torch.ones_like(alpha).index_copy(0, some, 1 - dark)


def composite(colour: Tensor, alpha: Tensor) -> Tensor:
    """Over a background; what would vanish there gets white or dark grey."""
    behind = background(len(colour), colour.shape[-1])
    own = (colour * _LUMA).sum((1, 2, 3)) / alpha.sum((1, 2, 3)).clamp(min=1)
    other = (behind.mean((2, 3), keepdim=True) * _LUMA).sum((1, 2, 3))
    vanishes = ((own - other).abs() < 0.2).nonzero().flatten()
    behind[vanishes] = torch.where(own < 0.6, 1.0, 0.15)[vanishes, None, None, None]
    return colour + (1 - alpha) * behind * shadow(alpha)


def _jpeg(picture: Tensor) -> Tensor:
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    quality = int(torch.randint(25, 90, ()))
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255


def degrade(x: Tensor) -> Tensor:
    """Some are blurred, noisy or JPEGs."""
    n = len(x)
    blurry, noisy = _some(n, 0.2), _some(n, 0.15)
    x[blurry] = torch.lerp(x[blurry], _blurred(x[blurry]), _uniform(len(blurry), 0.3, 1))
    x[noisy] += torch.randn_like(x[noisy]) * _uniform(len(noisy), 0, 0.08)
    for i in _some(n, 0.1):
        x[i] = _jpeg(x[i])
    return x


def occlude(x: Tensor) -> Tensor:
    """Some lose a rectangle of up to a third of each side."""
    size = x.shape[-1]
    for i in _some(len(x), 0.2):
        top, left = torch.randint(size, (2,)).tolist()
        high, wide = torch.randint(1, size // 3, (2,)).tolist()
        x[i, :, top : top + high, left : left + wide] = torch.rand(3, 1, 1)
    return x


def augment(drawings: Tensor, mirrored: Tensor, size: int = 64) -> Tensor:
    """Drawings (N, 4, S, S) uint8, premultiplied, to training pictures (N, 3, size, size)."""
    rgba = pose(drawings.float() / 255, mirrored, size)
    colour, alpha = rgba[:, :3], rgba[:, 3:]
    colour = shade(recolour(tint(colour, alpha), alpha), alpha)
    rgba = border(torch.cat([colour, alpha], 1))
    picture = composite(rgba[:, :3], rgba[:, 3:])
    return normalise(occlude(degrade(picture)).clamp(0, 1))


def plain(drawings: Tensor, size: int = 64) -> Tensor:
    """Drawings on white, as they are: what validation sees."""
    rgba = drawings.float() / 255
    white = rgba[:, :3] + 1 - rgba[:, 3:]
    small = F.interpolate(white, (size, size), mode="bicubic", align_corners=False, antialias=True)
    return normalise(small.clamp(0, 1))
