"""GFL's own head (arXiv:2006.04388): ATSS with joint quality and general boxes, with MMDetection's arguments."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import GFLHead as MMDetGFLHead

from mmdet_gfl.registry import MODELS

from .atss_gfl_head import ATSSGFLHead


@MODELS.register_module()
class GFLHead(ATSSGFLHead):
    """GFL's head, with the arguments, state dict and results of MMDetection's ``GFLHead``, and ``delta``.

    It is the joint + General-with-DFL point of the ATSS plane; for any other point use :class:`ATSSGFLHead`.

    Args:
        loss_dfl: Distribution Focal Loss, ours or MMDetection's.
        bbox_coder: ``DistancePointBBoxCoder``; its ``clip_border`` says whether detections are clipped to the image.
        reg_max: n; the largest distance is n steps.
        delta: Δ; the step from one distance to the next, in strides.
        **kwargs: ``loss_cls``, Quality Focal Loss, ours or MMDetection's, ``loss_bbox``, an IoU loss, and all others as
            in MMDetection.

    Raises:
        ValueError: ``quality`` or ``box`` is given, more than one anchor per location, another ``bbox_coder``, or a
            ``loss_cls`` for one-hot labels.
    """

    stock_head = MMDetGFLHead
    baseline_quality = 'JointQuality'
    free_axes = False
    cls_name = 'gfl_cls'
    reg_name = 'gfl_reg'
    quality_name = 'gfl_centerness'
    #: Arguments of the quality beside ``loss_cls``.
    quality_args: dict[str, Any] = {}  # noqa: RUF012
    renamed_layers = {'atss_cls': 'gfl_cls', 'atss_reg': 'gfl_reg', 'atss_centerness': 'gfl_centerness'}

    # GFLHead calls its assigner by keyword, where ATSSHead calls it by ATSS's positions: so it takes others too.
    get_targets = MMDetGFLHead.get_targets
    _get_targets_single = MMDetGFLHead._get_targets_single
    get_num_level_anchors_inside = MMDetGFLHead.get_num_level_anchors_inside

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        stacked_convs: int = 4,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] = dict(type='GN', num_groups=32, requires_grad=True),  # noqa: B006
        loss_dfl: dict[str, Any] = dict(type='mmdet_gfl.DistributionFocalLoss', loss_weight=0.25),  # noqa: B006
        bbox_coder: dict[str, Any] = dict(type='DistancePointBBoxCoder'),  # noqa: B006
        reg_max: int = 16,
        init_cfg: dict[str, Any] | list[dict[str, Any]] = dict(  # noqa: B006
            type='Normal',
            layer='Conv2d',
            std=0.01,
            override=dict(type='Normal', name='gfl_cls', std=0.01, bias_prob=0.01),
        ),
        *,
        delta: float = 1.0,
        **kwargs: Any,
    ) -> None:
        for key in ('quality', 'box'):
            if key in kwargs:
                raise ValueError(
                    f'{type(self).__name__} has no {key}; use mmdet_gfl.ATSSGFLHead, whose {key} is free to choose'
                )
        coder = (bbox_coder or {}).get('type')
        if getattr(coder, '__name__', str(coder)).rpartition('.')[2] != 'DistancePointBBoxCoder':
            raise ValueError(
                f"GFLHead's bbox_coder is dict(type='DistancePointBBoxCoder'), got {bbox_coder!r}; its boxes are "
                f'distances from a point'
            )
        super().__init__(
            num_classes,
            in_channels,
            stacked_convs=stacked_convs,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            bbox_coder=bbox_coder,
            init_cfg=init_cfg,
            quality=dict(
                type=f'mmdet_gfl.{self.default_quality}', loss_cls=kwargs.pop('loss_cls', None), **self.quality_args
            ),
            box=dict(type='mmdet_gfl.GeneralBox', reg_max=reg_max, delta=delta, loss_dfl=loss_dfl),
            **kwargs,
        )
        self.reg_max = reg_max
        if self.num_base_priors != 1:
            raise ValueError(
                f'GFLHead predicts one box per location, but anchor_generator makes {self.num_base_priors} anchors; '
                f'use one ratio and one scale, as ratios=[1.0], octave_base_scale=8, scales_per_octave=1'
            )
