"""LPIPS with VGG16's features: how different two images look, as a loss and as a metric."""

from __future__ import annotations

import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from polc.weights import fill, read_tensors
from polc_runtime.errors import CheckpointError, first_line

MARGIN = 15
"""Pixels that the joint transform adds on each side, and the most it cuts off again."""

PROBE_SECONDS = 5.0
_TRUNK = "features."


def jointly_shifted(
    first: Tensor, second: Tensor, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Moves and stretches two batches of images a little, both the same way, differentiably.

    Each is padded by 15 pixels by edge replication, loses 0..15 pixels, drawn once for the batch, on each of
    its four sides, and is resized back bicubically. So no pixel keeps its place on the grid of VGG's pooling.

    Args:
        first: [B,3,H,W].
        second: [B,3,H,W].
        generator: of the four draws (top, bottom, left, right), on the CPU; None for torch's global one.
    """
    top, bottom, left, right = torch.randint(MARGIN + 1, (4,), generator=generator).tolist()
    height, width = first.shape[2:]

    def shifted(image: Tensor) -> Tensor:
        padded = F.pad(image, (MARGIN,) * 4, mode="replicate")
        rows, columns = padded.shape[2:]
        cut = padded[:, :, top : rows - bottom, left : columns - right]
        return F.interpolate(cut, (height, width), mode="bicubic", align_corners=False)

    return shifted(first), shifted(second)


class PerceptualLoss(nn.Module):
    """LPIPS version 0.1 on VGG16 (Zhang et al. 2018), frozen and always in evaluation mode.

    The `lpips` package has the heads; VGG16's own weights are torchvision's.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        """Loads the weights.

        Args:
            weights: file with the state dict of torchvision's vgg16 (`.pth` or `.safetensors`); None for
                torchvision's own, from torch's cache or, once, from download.pytorch.org.

        Raises:
            CheckpointError: the file is missing or holds other weights, or the download is not possible.
        """
        super().__init__()
        path = Path(weights) if weights is not None else _cached_weights()
        tensors, _ = read_tensors(path)
        self.lpips = _lpips()
        _fill_trunk(self.lpips.net, tensors, path)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Stays in evaluation mode: the heads' dropout is for training LPIPS itself."""
        return super().train(False)

    def forward(self, decoded: Tensor, original: Tensor, generator: Generator | None = None) -> Tensor:
        """The distance of each pair of images, [B], after `jointly_shifted`.

        Args:
            decoded: [B,3,H,W] in 0..1, not necessarily clamped; H and W at least 16.
            original: [B,3,H,W] in 0..1.
            generator: of the random shift, on the CPU; None for torch's global one.
        """
        return self.distance(*jointly_shifted(decoded, original, generator))

    def distance(self, decoded: Tensor, original: Tensor) -> Tensor:
        """LPIPS as it is, without the random shift: [B] of two [B,3,H,W] in 0..1."""
        return self.lpips(decoded, original, normalize=True).flatten()


def _lpips() -> Any:
    """LPIPS with the package's heads and a trunk without weights.

    Its own constructor would first draw all of vgg16's 138 million weights, most of them to be dropped.
    """
    import lpips

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision's vgg16 in the old way
        module = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    module.to_empty(device="cpu")
    module.scaling_layer = lpips.ScalingLayer()
    heads = Path(lpips.__file__).parent / "weights/v0.1/vgg.pth"
    module.load_state_dict(torch.load(heads, map_location="cpu", weights_only=True), strict=False)
    return module


def _fill_trunk(trunk: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads vgg16's `features.N.*` into the trunk's `sliceM.N.*`."""
    ours = {_TRUNK + key.partition(".")[2]: key for key in trunk.state_dict()}
    state = {ours[key]: value for key, value in tensors.items() if key in ours}
    names = {key: name for name, key in ours.items()}
    try:
        fill(trunk, trunk.state_dict(), state, lambda key: names.get(key, key))
    except CheckpointError as error:
        raise CheckpointError(f"{path} does not hold the weights of torchvision's vgg16: {error}") from None


def _cached_weights() -> Path:
    """Torchvision's file of VGG16, downloaded if it is not in torch's cache."""
    from torchvision.models import VGG16_Weights

    url = VGG16_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
    except (OSError, RuntimeError) as error:  # no connection, an HTTP error; a file with another hash
        raise CheckpointError(
            f"could not download LPIPS's VGG16 weights from {url} ({first_line(error)}); connect once, or "
            f"download the file elsewhere and put it at {path} or give its path"
        ) from error
    return path
