"""Color matching of frames to a reference (spec talking_avatar section 9)."""

import torch
from torch import Tensor

RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
XYZ_TO_RGB = (
    (3.2404813432005266, -1.5371515162713185, -0.4985363261688878),
    (-0.9692549499965682, 1.8759900014898907, 0.0415559265582928),
    (0.0556466391351772, -0.2040413383665112, 1.0573110696453443),
)
WHITE = (0.95047, 1.0, 1.08883)
SMALLEST_SPREAD = 1e-6


def match_color(video: Tensor, reference: Tensor, strength: float = 1.0) -> Tensor:
    """Match the mean and standard deviation of every frame to a reference, per channel of CIE Lab.

    Args:
        video: [1, 3, F, H, W] in [-1, 1].
        reference: [1, 3, 1, H', W'] in [-1, 1].
        strength: 0 leaves the video as it is, 1 matches fully.
    """
    if strength == 0:
        return video
    lab, wanted = _to_lab(video.float() / 2 + 0.5), _to_lab(reference.to(video).float() / 2 + 0.5)
    axes = (-2, -1)
    mean, std = lab.mean(axes, keepdim=True), lab.std(axes, correction=0, keepdim=True)
    goal, spread = wanted.mean(axes, keepdim=True), wanted.std(axes, correction=0, keepdim=True)
    matched = _to_rgb((lab - mean) * (spread / std.clamp(min=SMALLEST_SPREAD)) + goal)
    return torch.lerp(video.float(), matched * 2 - 1, strength).to(video.dtype)


def _mix(image: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Return linear combinations of the channels [B, 3, ...]."""
    return torch.einsum("oc,bc...->bo...", torch.tensor(matrix).to(image), image)


def _white(image: Tensor) -> Tensor:
    return torch.tensor(WHITE).to(image).view(1, 3, *[1] * (image.ndim - 2))


def _to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB [B, 3, ...] in [0, 1] to CIE Lab."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mix(linear, RGB_TO_XYZ) / _white(rgb)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 4 / 29).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _to_rgb(lab: Tensor) -> Tensor:
    """Convert CIE Lab [B, 3, ...] to sRGB, clipped to [0, 1]."""
    light, a, b = lab.unbind(1)
    y = (light + 16) / 116
    roots = torch.stack([y + a / 500, y, (y - b / 200).clamp(min=0)], dim=1)
    xyz = torch.where(roots > 0.2068966, roots**3, (roots - 4 / 29) / 7.787) * _white(lab)
    linear = _mix(xyz, XYZ_TO_RGB)
    curved = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear).clamp(0, 1)
