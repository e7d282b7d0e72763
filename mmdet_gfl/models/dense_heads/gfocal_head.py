"""GFLv2's own head (arXiv:2011.12885): GFL with distribution-guided quality, with the released code's arguments."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from mmdet_gfl.registry import MODELS

from .gfl_head import GFLHead


@MODELS.register_module()
class GFocalHead(GFLHead):
    """GFLv2's head, with the arguments of the released code's ``GFocalHead``; loads its checkpoints.

    ``forward`` gives logits where the released code gives probabilities, so ``loss_cls`` is a loss of logits, and its
    ``use_sigmoid=False`` is read as True. That code builds one class output more than there are classes; this row of a
    checkpoint is dropped while loading.

    ``reg_topk`` and ``reg_channels`` are ``topk`` and ``channels`` of :class:`DistributionGuidedQuality`, ``add_mean``
    makes the mean of the largest probabilities one of its statistics; the others are :class:`GFLHead`'s.
    """

    default_quality = 'DistributionGuidedQuality'

    def __init__(
        self,
        *args: Any,
        reg_topk: int = 4,
        reg_channels: int = 64,
        add_mean: bool = True,
        loss_cls: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        statistics = ('topk', 'mean') if add_mean else ('topk',)
        self.quality_args = dict(topk=reg_topk, channels=reg_channels, statistics=statistics)
        loss_cls = None if loss_cls is None else dict(loss_cls, use_sigmoid=True)
        super().__init__(*args, loss_cls=loss_cls, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Drop the row of no class of the released checkpoints, with one log line."""
        keys = [f'{prefix}{self.cls_name}.{kind}' for kind in ('weight', 'bias')]
        if all(key in state_dict and len(state_dict[key]) == self.num_classes + 1 for key in keys):
            for key in keys:
                state_dict[key] = state_dict[key][:-1]
            print_log(
                f'{keys[0]} has {self.num_classes + 1} rows, as the released GFLv2 models have; the last, of no class, '
                f'is dropped',
                logger='current',
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
