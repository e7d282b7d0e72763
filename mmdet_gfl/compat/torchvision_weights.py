"""``torchvision://resnet50`` without torchvision, which MMEngine asks for the address and for nothing else.

The configs of nearly all detectors start from these weights, and torchvision does not import beside every torch.
"""

from pathlib import Path
from typing import Any

import mmengine

from mmdet_gfl.compat.operators import torchvision_ops

__all__ = ['load_from_torchvision_address']


def load_from_torchvision_address(filename: str, map_location: Any = None) -> Any:
    """Load weights of torchvision's model zoo, by MMEngine's loader where torchvision imports.

    Elsewhere the address comes from the list that MMEngine carries: that of torchvision 0.12, whose names, such as
    ``resnet50``, are those of configs.

    Args:
        filename: ``torchvision://NAME``.
        map_location: As in ``torch.load``.

    Raises:
        ValueError: The list has no such name.
        urllib.error.URLError: The weights are not in torch's cache and cannot be downloaded.
    """
    from mmengine.runner.checkpoint import load_from_http, load_from_torchvision

    if torchvision_ops() is not None:
        return load_from_torchvision(filename, map_location)
    name = filename.partition('://')[2]
    addresses = mmengine.load(Path(mmengine.__file__).parent / 'hub' / 'torchvision_0.12.json')
    if name not in addresses:
        raise ValueError(
            f'{filename} is not known without torchvision, which does not import here; known: '
            f'{", ".join(sorted(addresses))}. A local file or an https:// address works too.'
        )
    return load_from_http(addresses[name], map_location=map_location)
