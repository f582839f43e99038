"""Normalisation of a whole batch, bit-equal to torchvision's ToTensor and Normalize."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalisation:
    """(pixel / 255 − mean) / std per channel: uint8 or float32 (N, C, H, W) to float32, channels_last."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], width: int, device: torch.device) -> None:
        # Repeated over a row of pixels: an inner dimension of 3 would defeat vectorisation.
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).repeat(width)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).repeat(width)

    def __call__(self, images: Tensor) -> Tensor:
        n, c, h, w = images.shape
        rows = images.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)
        rows = rows.view(n * h, w * c)
        rows = rows / 255 if images.dtype == torch.float32 else rows.div_(255)  # float32 may be the caller's own memory
        return rows.sub_(self.mean).div_(self.std).view(n, h, w, c).permute(0, 3, 1, 2)
