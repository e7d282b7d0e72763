"""Heads beside their MMDetection heads, and batches for them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_gfl.models.task_modules import AssignmentBatch, Locations, Targets
from mmdet_gfl.ops import LocationIndex

STRIDES = [8, 16, 32, 64, 128]
CHANNELS = 16


def gfl_config(head: str = 'mmdet_gfl.GFLHead', ours: bool = True, **changes: Any) -> ConfigDict:
    """Config of a small GFL head with our losses or MMDetection's; ``changes`` replace arguments."""
    prefix = 'mmdet_gfl.' if ours else ''
    cfg = dict(
        type=head,
        num_classes=5,
        in_channels=CHANNELS,
        feat_channels=CHANNELS,
        stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=4, requires_grad=True),
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES
        ),
        loss_cls=dict(type=f'{prefix}QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type=f'{prefix}DistributionFocalLoss', loss_weight=0.25),
        reg_max=16,
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
        test_cfg=dict(
            nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=100
        ),
    )
    cfg.update(changes)
    return ConfigDict(copy.deepcopy(cfg))


def build(cfg: ConfigDict) -> nn.Module:
    """The head, with random weights: some scores pass thresholds, and distributions are not flat."""
    head = MODELS.build(cfg)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in head.named_parameters():
        if parameter.dim() > 1:
            std = 0.3 if 'convs' in name else 0.15
            parameter.data = torch.randn(parameter.shape, generator=generator) * std
        elif name.endswith('bias'):
            parameter.data.fill_(-2.0 if name.endswith('_cls.bias') else 0.0)
    return head


def features(sizes: tuple[int, int], images: int, requires_grad: bool = False) -> list[Tensor]:
    """Random features of all levels, for images of (height, width) pixels."""
    generator = torch.Generator().manual_seed(2)
    levels = [torch.randn(images, CHANNELS, -(-sizes[0] // s), -(-sizes[1] // s), generator=generator) for s in STRIDES]
    return [level.requires_grad_(requires_grad) for level in levels]


def objects(counts: list[int], size: tuple[int, int], num_classes: int = 5, seed: int = 3) -> list[InstanceData]:
    """``counts`` random objects per image of (height, width); some cross the border, as after a crop."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    result = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.8
        extent = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.6 + 4
        labels = torch.randint(0, num_classes, (count,), generator=generator)
        result.append(InstanceData(bboxes=torch.cat((corner, corner + extent), dim=1), labels=labels))
    return result


def metas(size: tuple[int, int], images: int, scale: tuple[float, float] = (1.0, 1.0)) -> list[dict]:
    """Meta information of images of (height, width)."""
    one = dict(img_shape=size, pad_shape=size, scale_factor=scale)
    return [dict(one, img_path=f'image-{index}.jpg') for index in range(images)]


def totals(losses: dict[str, Any]) -> dict[str, Tensor]:
    """The sum over the levels of each key of a loss dict; keys without ``loss`` are left out."""
    return {k: sum(v) if isinstance(v, (list, tuple)) else v for k, v in losses.items() if 'loss' in k}


def loss_and_gradients(head: nn.Module, feats: list[Tensor], *targets: Any) -> tuple[dict[str, Tensor], dict]:
    """Sum of each loss, and the gradients of their sum to the parameters and the features by name."""
    losses = totals(head.loss_by_feat(*head(feats), *targets))
    inputs = dict(head.named_parameters()) | {f'level {i}': level for i, level in enumerate(feats)}
    grads = torch.autograd.grad(sum(losses.values()), list(inputs.values()), allow_unused=True)
    return {k: v.detach() for k, v in losses.items()}, dict(zip(inputs, grads))


def named(what: str) -> Callable[[str], str]:
    """A ``msg`` for ``assert_close`` that starts with the name of the values compared."""
    return lambda message: f'{what}: {message}'


def assert_same_training(ours: nn.Module, theirs: nn.Module, feats: list[Tensor], *targets: Any) -> None:
    """Assert that losses agree to 1e-5, and gradients to 1e-4 of their maximum."""
    our_losses, our_grads = loss_and_gradients(ours, feats, *targets)
    their_losses, their_grads = loss_and_gradients(theirs, feats, *targets)
    assert our_losses.keys() == their_losses.keys()
    for key, value in their_losses.items():
        torch.testing.assert_close(our_losses[key].sum(), value.sum(), rtol=1e-5, atol=1e-7, msg=named(key))
    for name, grad in their_grads.items():
        if grad is None:  # theirs has no gradient where nothing depends on a parameter; ours has zeros
            assert our_grads[name] is None or our_grads[name].abs().max() == 0, name
            continue
        limit = 1e-4 * grad.abs().max().item()
        torch.testing.assert_close(our_grads[name], grad, rtol=0, atol=max(limit, 1e-9), msg=named(name))


def settled(result: InstanceData) -> InstanceData:
    """The detections with those of equal score, which are neighbours, ordered by label and left side."""
    result = result[result.bboxes[:, 0].argsort()]
    result = result[result.labels.argsort(stable=True)]
    return result[result.scores.argsort(descending=True, stable=True)]


def assert_same_detections(ours: list[InstanceData], theirs: list[InstanceData], least: int = 1) -> None:
    """Assert equal boxes, scores and labels, in the same order but for equal scores, and ``least`` detections or more.

    MMDetection's sort by score is not stable: the order of equal scores depends on the other scores.
    """
    assert sum(len(result) for result in theirs) >= least
    for our, their in zip(ours, theirs):
        assert len(our) == len(their)
        torch.testing.assert_close(our.scores, their.scores, rtol=1e-5, atol=1e-6)
        our, their = settled(our), settled(their)
        assert torch.equal(our.labels, their.labels)
        torch.testing.assert_close(our.scores, their.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(our.bboxes, their.bboxes, rtol=1e-5, atol=1e-3)


# Hosts --------------------------------------------------------------------------------------------------------------

HOSTS = ('ATSS', 'FCOS', 'Retina', 'Fovea', 'SSD')
QUALITIES = ('JointQuality', 'NoQuality', 'CenternessBranch', 'IoUBranch', 'CenternessGuided', 'IoUGuided')
BOXES = {
    'dirac': dict(type='mmdet_gfl.DiracBox'),
    'gaussian': dict(type='mmdet_gfl.GaussianBox'),
    'general': dict(type='mmdet_gfl.GeneralBox', loss_dfl=None),
    'dfl': dict(type='mmdet_gfl.GeneralBox'),
}
#: The quality with which, and Dirac boxes, a host is MMDetection's head.
BASELINES = dict(
    ATSS='CenternessBranch', FCOS='CenternessBranch', Retina='NoQuality', Fovea='NoQuality', SSD='NoQuality'
)
#: Hosts whose assigner looks at predictions.
DYNAMIC_HOSTS = ('RTMDet', 'RTMDetSepBN')
BASELINES |= dict.fromkeys(DYNAMIC_HOSTS, 'AssignedQuality')
SSD_STRIDES = [8, 16, 32, 64, 100, 300]
FOCAL = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)


def part(name: str, **args: Any) -> dict[str, Any]:
    """Config of a quality or box representation of ours."""
    return dict(type=f'mmdet_gfl.{name}', **args)


def covering(points: Iterable[tuple[Any, ...]], together: int = 2) -> list[tuple[Any, ...]]:
    """Some of these points of a grid that hold every pair of values, of any two axes, that one of the points holds.

    Or every value (``together=1``), or all that three axes have together.
    """
    points = list(points)
    groups = [[*combinations(enumerate(map(repr, point)), together)] for point in points]
    chosen, seen = set(), Counter()
    while not all(seen[group] for point in groups for group in point):
        # The point with the most that is new, and with what is rarest where several have as much
        gains = [(sum(not seen[group] for group in point), -sum(seen[group] for group in point)) for point in groups]
        best = gains.index(max(gains))
        seen.update(groups[best])
        chosen.add(best)
    return [points[i] for i in sorted(chosen)]


def qualities_of(host: str) -> tuple[str, ...]:
    """The qualities that fit a host."""
    if host == 'SSD':  # its hard-negative mining takes labels alone
        return QUALITIES[:2]
    return (BASELINES[host], *QUALITIES) if host in DYNAMIC_HOSTS else QUALITIES


#: Every host with every quality and box; and points with each pair of them, which serve where pairs are what can fail.
PLANE = [(host, quality, box) for host in BASELINES for quality in qualities_of(host) for box in BOXES]
PAIRS_OF_PLANE = covering(PLANE)


def _max_iou(neg_iou_thr: float, **rest: Any) -> dict[str, Any]:
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=neg_iou_thr, min_pos_iou=0.0, ignore_iof_thr=-1)
    return dict(assigner=assigner, sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, **rest)


def _delta_coder(stds: list[float]) -> dict[str, Any]:
    return dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=stds)


_TOWERS = dict(
    num_classes=5,
    in_channels=CHANNELS,
    feat_channels=CHANNELS,
    stacked_convs=1,
    norm_cfg=dict(type='GN', num_groups=4, requires_grad=True),
    loss_cls=FOCAL,
)
_TEST = dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=100)
_HOST_CONFIGS: dict[str, dict[str, Any]] = dict(
    ATSS=dict(
        _TOWERS,
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES
        ),
        bbox_coder=_delta_coder([0.1, 0.1, 0.2, 0.2]),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1),
    ),
    FCOS=dict(
        _TOWERS,
        strides=STRIDES,
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        conv_bias=True,
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
    ),
    Retina=dict(
        _TOWERS,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=STRIDES
        ),
        bbox_coder=_delta_coder([1.0] * 4),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        train_cfg=_max_iou(0.4),
    ),
    Fovea=dict(
        _TOWERS,
        strides=STRIDES,
        base_edge_list=[16, 32, 64, 128, 256],
        scale_ranges=((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048)),
        loss_cls=dict(FOCAL, gamma=1.5, alpha=0.4),
        loss_bbox=dict(type='SmoothL1Loss', beta=0.11, loss_weight=1.0),
    ),
    SSD=dict(
        num_classes=5,
        in_channels=[CHANNELS] * len(SSD_STRIDES),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=300,
            basesize_ratio_range=(0.15, 0.9),
            strides=SSD_STRIDES,
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        ),
        bbox_coder=_delta_coder([0.1, 0.1, 0.2, 0.2]),
        train_cfg=_max_iou(0.5, smoothl1_beta=1.0, neg_pos_ratio=3),
    ),
)


_RTMDET: dict[str, Any] = dict(
    _TOWERS,
    anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=STRIDES[:3]),
    bbox_coder=dict(type='DistancePointBBoxCoder'),
    loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
    loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
    train_cfg=dict(assigner=dict(type='DynamicSoftLabelAssigner', topk=13), allowed_border=-1, pos_weight=-1),
)
_HOST_CONFIGS |= dict(RTMDet=_RTMDET, RTMDetSepBN=dict(_RTMDET, with_objectness=False, exp_on_reg=True))


def stock_config(host: str, **changes: Any) -> ConfigDict:
    """Config of a small head of MMDetection; ``changes`` replace arguments."""
    return ConfigDict(copy.deepcopy(dict(dict(_HOST_CONFIGS[host], type=f'{host}Head', test_cfg=_TEST), **changes)))


def host_config(host: str, quality: str | None = None, box: str | None = None, **changes: Any) -> ConfigDict:
    """The same for our head: its default axes, or ``quality`` by name and ``box`` by its key in ``BOXES``.

    RTMDet's hosts get focal loss where labels are hard; the others have it.
    """
    axes: dict[str, Any] = dict(quality=part(quality)) if quality else {}
    if host in DYNAMIC_HOSTS and quality in QUALITIES[1:]:
        axes['loss_cls'] = FOCAL
    axes |= dict(box=BOXES[box]) if box else {}
    return stock_config(host, **dict(dict(axes, type=f'mmdet_gfl.{host}GFLHead'), **changes))


def pair(host: str, **changes: Any) -> tuple[nn.Module, nn.Module]:
    """Our head at its baseline and MMDetection's, with the same weights."""
    theirs = build(stock_config(host, **changes))
    ours = MODELS.build(host_config(host, BASELINES[host], 'dirac', **changes))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    if host == 'SSD':
        theirs.loss_cls = ours.loss_cls  # MMDetection 3.3 uses it when it predicts, and does not build it
    return ours, theirs


def host_features(host: str, size: tuple[int, int], images: int, requires_grad: bool = False) -> list[Tensor]:
    """:func:`features`, for SSD and RTMDet on their own levels."""
    if host != 'SSD':
        return features(size, images, requires_grad)[: 3 if host in DYNAMIC_HOSTS else None]
    generator = torch.Generator().manual_seed(2)
    levels = [
        torch.randn(images, CHANNELS, -(-size[0] // s), -(-size[1] // s), generator=generator) for s in SSD_STRIDES
    ]
    return [level.requires_grad_(requires_grad) for level in levels]


def assert_state_dicts_fit(host: str, **changes: Any) -> None:
    """Assert that state dicts load strictly both ways, and that parameters have one order, as optimizers need."""
    ours, theirs = pair(host, **changes)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    fresh = MODELS.build(stock_config(host, **changes))
    fresh.load_state_dict(ours.state_dict(), strict=True)
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
        assert torch.equal(value, fresh.state_dict()[name]), name


def assert_host_trains_the_same(
    host: str,
    size: tuple[int, int],
    counts: list[int],
    ignored: list[InstanceData] | None = None,
    **changes: Any,
) -> None:
    """Assert that losses and gradients of our baseline are MMDetection's."""
    ours, theirs = pair(host, **changes)
    feats = host_features(host, size, len(counts), requires_grad=True)
    gts = objects(counts, size, changes.get('num_classes', 5))
    images = (gts, metas(size, len(counts))) + ((ignored,) if ignored else ())
    assert_same_training(ours, theirs, feats, *images)


def assert_host_detects_the_same(
    host: str, size: tuple[int, int], rescale: bool = False, least: int = 50, **changes: Any
) -> None:
    """Assert that detections of our baseline are MMDetection's, on the outputs of each."""
    ours, theirs = (head.eval() for head in pair(host, **changes))
    feats, images = host_features(host, size, 2), metas(size, 2, scale=(0.5, 0.8))
    assert_same_detections(
        ours.predict_by_feat(*ours(feats), batch_img_metas=images, rescale=rescale),
        theirs.predict_by_feat(*theirs(feats), batch_img_metas=images, rescale=rescale),
        least,
    )


def featmap_sizes(levels: list[Tensor]) -> list[tuple[int, int]]:
    """Height and width of each level."""
    return [(level.size(-2), level.size(-1)) for level in levels]


def flat_rows(levels: list[Tensor], num_outputs: int) -> Tensor:
    """Predictions of all locations, (R, num_outputs), by transposing and joining."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(-1, num_outputs) for level in levels])


def positives_of(
    head: nn.Module, size: tuple[int, int], gts: list[InstanceData], feats: list[Tensor]
) -> tuple[Targets, list[Tensor]]:
    """The head's targets for these features, and its outputs as (R, outputs per location) each."""
    outs = head(feats)
    num_outputs = [head.cls_out_channels, 4 * head.box.channels, 1]
    batch = head.assignment_batch(featmap_sizes(outs[0]), gts, metas(size, len(gts)), None, *outs[:2])
    return head.targets(batch), [flat_rows(*kind) for kind in zip(outs, num_outputs)]


def row_targets(locations: Locations, gt_bboxes: Tensor, **changes: Any) -> Targets:
    """Targets whose positives are all locations of an image of one row, of class 0; ``changes`` replace fields."""
    count = len(gt_bboxes)
    pos = LocationIndex([(1, count)], 1, [1]).coords(torch.arange(count))
    labels = torch.zeros(count, dtype=torch.long)
    return Targets(pos, labels, gt_bboxes, locations, None, float(count), 1)._replace(**changes)


def grid_batch(index: LocationIndex, boxes: list[Tensor]) -> AssignmentBatch:
    """An assignment's input for the objects (G, 4) of each image, with labels 0 to 4 in turn."""
    gts = [InstanceData(bboxes=of_image, labels=torch.arange(len(of_image)) % 5) for of_image in boxes]
    return AssignmentBatch(index, gts, [{}] * len(gts))


def shipped_head(path: str, our_type: str | None = None, **changes: Any) -> ConfigDict:
    """The head of a config of MMDetection, small; ``our_type`` is the only other change."""
    import mmdet
    from mmengine.config import Config

    model = Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / path).model
    head = dict(model.bbox_head, train_cfg=model.get('train_cfg'), test_cfg=model.test_cfg, **changes)
    return ConfigDict(head | (dict(type=our_type) if our_type else {}))
