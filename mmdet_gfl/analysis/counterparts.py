"""The head of MMDetection that a head of ours is compared with, and that head's config with its type changed to ours.

No host is named here: its attributes say which head of MMDetection it stands for, and with which quality.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config, ConfigDict
from torch import nn

from mmdet_gfl.conversion import FOCAL_LOSS, class_of
from mmdet_gfl.conversion.heads import weight_of
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.engine.type_checks import arguments_of, friendly_errors
from mmdet_gfl.models.boxes.general import GeneralBox
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.losses import takes_quality
from mmdet_gfl.registry import MODELS, hosts_of_stock_heads

#: Arguments that have another meaning on the head of another host.
OF_ONE_HOST = ('bbox_coder', 'reg_decoded_bbox', 'init_cfg')


@dataclass(frozen=True)
class Heads:
    """A head of ours and those that it is measured beside.

    Attributes:
        ours: Ours.
        theirs: MMDetection's.
        type_changed: A head of ours that computes the same as ``theirs``, from the same config by :func:`with_host`,
            hence with MMDetection's losses; None where ``ours`` is such a head.
        equal: Whether ``ours`` and ``theirs`` compute the same.
        names: Names of ``ours`` and ``theirs`` for the report.
        note: What ``type_changed`` is, and where ``equal`` is False what that means.
    """

    ours: DenseGFLMixin
    theirs: Any
    type_changed: DenseGFLMixin | None
    equal: bool
    names: tuple[str, str]
    note: str


def build_heads(cfg: Config, num_classes: int | None, device: torch.device) -> Heads:
    """The head of a config, and those that it is measured beside.

    Args:
        cfg: The whole config of a detector; a stock head in it is replaced by the host that stands for it.
        num_classes: Replaces the config's.
        device: Device of the heads.

    Raises:
        UserError: The config has no head with a counterpart, or one of the heads cannot be built from it.
    """
    head_cfg = head_config(cfg.get('model') or ConfigDict())
    if num_classes is not None:
        head_cfg.num_classes = num_classes
    with friendly_errors(cfg):
        ours = build_head(head_cfg).to(device)
    host = nearest_host(ours)
    stock_cfg = stock_config(head_cfg, ours, host)
    theirs, changed = (build_head(one).to(device) for one in (stock_cfg, with_host(stock_cfg, host)))
    if not hasattr(theirs, 'loss_cls'):  # SSDHead of MMDetection 3.3 uses it in predictions and does not define it
        theirs.loss_cls = changed.loss_cls
    equal = _point(ours) == _point(changed)
    same_losses = equal and list(map(type, _losses(ours).values())) == list(map(type, _losses(changed).values()))
    names = f'{type(ours).__name__} ({_axes(ours)})', f"MMDetection's {type(theirs).__name__}"
    note = _note(ours, changed, names[1], equal, same_losses)
    return Heads(ours, theirs, None if same_losses else changed, equal, names, note)


def head_config(model: ConfigDict) -> ConfigDict:
    """Config of a detector's head, or of the host that stands for MMDetection's, with ``train_cfg`` and ``test_cfg``.

    Args:
        model: The config's ``model``.

    Raises:
        UserError: There is no ``bbox_head``, or another one.
    """
    given, hosts = model.get('bbox_head'), hosts_of_stock_heads()
    accepted = ', '.join(f'{stock.__name__} or mmdet_gfl.{host.__name__}' for stock, host in hosts.items())
    if not isinstance(given, dict) or 'type' not in given:
        raise UserError(
            f'model.bbox_head is not one head of a single-stage detector (model.type={model.get("type")!r}); accepted: '
            f'{accepted}'
        )
    cfg = ConfigDict(dict(given, train_cfg=model.get('train_cfg'), test_cfg=model.get('test_cfg')))
    kind = class_of(given['type'])
    if kind in hosts:
        return with_host(cfg, hosts[kind])
    if isinstance(kind, type) and issubclass(kind, DenseGFLMixin):
        return cfg
    raise UserError(
        f'model.bbox_head.type={given["type"]!r} is not a GFL head, and none replaces it; accepted: {accepted}, or '
        f'a head of your own that derives from DenseGFLMixin'
    )


def build_head(cfg: ConfigDict) -> Any:
    """The head of a config.

    Raises:
        UserError: It cannot be built.
    """
    try:
        return MMDET_MODELS.build(copy.deepcopy(cfg))
    except (TypeError, ValueError, AssertionError) as error:
        name = getattr(cfg.type, '__name__', cfg.type)
        raise UserError(f'{name} cannot be built from model.bbox_head: {error}') from error


def with_host(cfg: ConfigDict, host: type[DenseGFLMixin]) -> ConfigDict:
    """Config of a stock head with its type replaced by the host that stands for it, at the point of the stock head.

    Where the host has free axes, these are its baseline quality and Dirac boxes.
    """
    axes = dict(quality=dict(type=f'mmdet_gfl.{host.baseline_quality}'), box=dict(type='mmdet_gfl.DiracBox'))
    return ConfigDict(dict(cfg, type=host, **(axes if host.free_axes else {})))


def nearest_host(head: DenseGFLMixin) -> type[DenseGFLMixin]:
    """The host whose stock head is nearest to what a head computes: one without free axes, else the head's own host.

    A host without free axes is at the point of its own quality and a General box with DFL.
    """
    box = head.box
    is_general = isinstance(box, GeneralBox) and box.delta == 1 and box.loss_dfl is not None
    is_general = is_general and head.num_base_priors == 1
    hosts: dict[Any, type[DenseGFLMixin]] = hosts_of_stock_heads()
    for host in hosts.values():
        is_on_plane = not host.free_axes and issubclass(host, type(head))
        if is_on_plane and is_general and isinstance(head.quality, MODELS.get(host.baseline_quality)):
            return host
    return hosts.get(head.stock_head, type(head))  # that of a subclass of a host is the host's


def stock_config(cfg: ConfigDict, head: DenseGFLMixin, host: type[DenseGFLMixin]) -> ConfigDict:
    """Config of the stock head of a host with what it can take from the config of our head.

    Args:
        cfg: Config of our head, with ``train_cfg`` and ``test_cfg``.
        head: The same, built.
        host: See :func:`nearest_host`.
    """
    stock_head: Any = host.stock_head
    accepted = set(arguments_of(stock_head))
    if not isinstance(head, host):
        accepted -= set(OF_ONE_HOST)
    losses = dict(loss_cls=_class_loss(cfg, head, host), loss_bbox=_box_loss(cfg, head, host))
    stock = {key: value for key, value in (dict(cfg) | losses).items() if key in accepted and value is not None}
    if not host.free_axes:
        stock['loss_dfl'] = dict(type='mmdet.DistributionFocalLoss', loss_weight=weight_of(head.loss_dfl))
        stock['reg_max'] = head.box.channels - 1
    return ConfigDict(dict(stock, type=stock_head))


def _class_loss(cfg: ConfigDict, head: DenseGFLMixin, host: type[DenseGFLMixin]) -> dict[str, Any] | None:
    """The config's class loss if the stock head can take it, else one that it can; None leaves it to the stock head."""
    if MODELS.get(host.baseline_quality).soft_labels:
        own = head.loss_cls if isinstance(head.loss_cls, QualityFocalLoss) else QualityFocalLoss()
        return dict(type='mmdet.QualityFocalLoss', use_sigmoid=True, beta=own.beta, loss_weight=own.loss_weight)
    given: dict[str, Any] | None = cfg.get('loss_cls')
    if given is not None and not takes_quality(given):
        return given
    return FOCAL_LOSS if head.quality.soft_labels else None


def _box_loss(cfg: ConfigDict, head: DenseGFLMixin, host: type[DenseGFLMixin]) -> dict[str, Any] | None:
    """The config's box loss likewise."""
    given: dict[str, Any] | None = cfg.get('loss_bbox')
    name = str((given or {}).get('type'))
    if not host.free_axes and type(head.loss_bbox).__name__ not in name:  # superseded by the General box's default
        return dict(type='GIoULoss', loss_weight=weight_of(head.loss_bbox))
    return None if host.free_axes and 'IoU' in name and not head.host_coder.on_boxes else given


def _losses(head: DenseGFLMixin) -> dict[str, nn.Module]:
    """Losses that a head uses, by name."""
    unused = () if head.quality.branch else ('loss_centerness',)
    children = sorted(head.named_children(), key=lambda child: child[0])
    return {name: child for name, child in children if name.startswith('loss_') and name not in unused}


def _point(head: DenseGFLMixin) -> tuple[Any, ...]:
    """Identity of a head's computation; MMDetection's losses and ours of one name are the same."""
    losses = {name: type(loss).__name__ for name, loss in _losses(head).items()}
    return type(head.quality), type(head.box), getattr(head.box, 'delta', None), head.box_weight, losses


def _axes(head: DenseGFLMixin) -> str:
    return f'{type(head.quality).__name__}, {type(head.box).__name__}'


def _note(ours: DenseGFLMixin, changed: DenseGFLMixin, theirs: str, equal: bool, same_losses: bool) -> str:
    """See :attr:`Heads.note`."""
    host = type(changed)
    change = f'`type=mmdet_gfl.{host.__name__}`' + (f' and ({_axes(changed)})' if host.free_axes else ' alone')
    if same_losses:
        return f"Ours is MMDetection's config with {change}, with MMDetection's own losses."
    note = f"Type changed: MMDetection's config with {change}, with MMDetection's own losses."
    if equal:
        return note
    return (
        f'MMDetection has no counterpart of {type(ours).__name__} ({_axes(ours)}): {theirs} computes something else, '
        f'and is not checked to be equal. {note}'
    )
