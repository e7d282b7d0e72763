"""The config of the GFL head that stands for another head."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.engine.type_checks import arguments_of
from mmdet_gfl.models.boxes import BoxRepresentation
from mmdet_gfl.models.losses import takes_quality
from mmdet_gfl.models.quality import Quality
from mmdet_gfl.registry import MODELS, hosts_of_stock_heads, registered_hosts
from mmdet_gfl.utils.registration import accepted

from .heads import HeadConfig, bare_name, find_heads, nothing_to_convert, weight_of
from .notes import notes

PREFIX = 'mmdet_gfl.'
#: Arguments of stock heads that concern the host's own coding of a box, and its branch.
CODING_KEYS, BRANCH_KEYS = ('bbox_coder', 'reg_decoded_bbox', 'exp_on_reg'), ('loss_centerness',)
#: The class loss of hard labels, where the stock head's own learns qualities.
FOCAL_LOSS = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
#: The loss of boxes in their code, as RetinaNet and FoveaBox have it, where the config's compares boxes.
CODE_LOSS = dict(type='SmoothL1Loss', beta=0.11, loss_weight=1.0)
#: The coding of ATSS's boxes, for a head with anchors that was trained on boxes of another kind.
ANCHOR_CODER = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2])


class Axes(NamedTuple):
    """Quality and box that a head gets; None: the default of its host."""

    quality: str | None  #: name of a registered quality
    box: str | None  #: name of a registered box representation
    box_weight: str | None = None  #: argument of the quality

    def quality_cfg(self, default: str) -> dict[str, Any]:
        """Config of the quality, whose name is ``default`` if none is given."""
        weight = dict(box_weight=self.box_weight) if self.box_weight else {}
        return dict(type=PREFIX + (self.quality or default), **weight)

    def is_default(self, host: Any) -> bool:
        """True for the quality and the box that a host has without any."""
        plain = self.quality in (None, host.default_quality) and not self.box_weight
        return plain and self.box in (None, 'GeneralBox')


@dataclass
class Conversion:
    """Conversion of one head of a config.

    Attributes:
        key: The dotted key of the head, as ``model.bbox_head``.
        stock: Config of the head before.
        converted: Config of the GFL head, complete.
        head: The GFL head, built on the device ``meta``.
        own: The config has a GFL head already, which is moved to another quality or box.
        notes: What changes, a sentence each.
    """

    key: str
    stock: dict[str, Any]
    converted: dict[str, Any]
    head: Any
    own: bool
    notes: list[str] = field(default_factory=list)


def convert_config(
    cfg: Config, quality: str | None = None, box: str | None = None, box_weight: str | None = None, own: bool = False
) -> list[Conversion]:
    """Convert the heads of a config; the config itself is not changed.

    Args:
        cfg: The config of a detector.
        quality: Name of a registered quality, with or without ``mmdet_gfl.``; None: the host's default. ``'baseline'``:
            that of the stock head.
        box: Name of a registered box representation likewise; None: ``GeneralBox``, with DFL.
        box_weight: Argument of the quality; None: its default.
        own: Take GFL heads too, and move them to that quality and box, whose arguments stay where the type does.

    Raises:
        UserError: The config has no head that can be converted, or quality, box and host do not fit together.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    cfg = Config(cfg.to_dict(), filename=cfg.filename)  # names in place of the classes of a pure-Python config
    quality = quality if quality in (None, 'baseline') else _checked('quality', quality, Quality)
    box = box and _checked('box', box, BoxRepresentation)
    model = cfg.get('model')
    if not isinstance(model, dict):
        raise UserError(f'{cfg.filename}: the config has no model')
    heads = list(find_heads(model))
    for head in heads:
        if not own and head.is_gfl:
            raise UserError(
                f'{head.key}.type={bare_name(head.node["type"])} is a GFL head already; its keys quality and box '
                'choose the rest'
            )
    found = [head for head in heads if head.stock is not None]
    if not found:
        raise UserError(nothing_to_convert(heads, model))
    return [_convert(head, cfg, Axes(quality, box, box_weight)) for head in found]


def apply(cfg: Config, conversions: list[Conversion]) -> Config:
    """A copy of a config with its heads replaced."""
    cfg = copy.deepcopy(cfg)
    for conversion in conversions:
        *parents, name = conversion.key.split('.')
        node = cfg._cfg_dict
        for parent in parents:
            node = node[parent]
        node[name] = ConfigDict(copy.deepcopy(conversion.converted))
    cfg.custom_imports = imports_of(cfg)
    return cfg


def imports_of(cfg: Config) -> dict[str, Any]:
    """``custom_imports`` of a config with this package, which supplies what ``mmcv-lite`` lacks."""
    given = (cfg.get('custom_imports') or {}).get('imports', [])
    others = [given] if isinstance(given, str) else [name for name in given if name != 'mmdet_gfl']
    return dict(imports=[*others, 'mmdet_gfl'], allow_failed_imports=False)


def free_host(host: Any) -> Any:
    """The host whose quality and box are free: the given one, or the one that it derives from, as GFL from ATSS."""
    return next(base for base in host.__mro__ if getattr(base, 'free_axes', False))


def _checked(key: str, name: str, kind: type) -> str:
    """The name of a registered quality or box without its scope."""
    MODELS.import_from_location()
    bare = name.removeprefix(PREFIX)
    cls = MODELS.module_dict.get(bare)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        more = ', or baseline' if kind is Quality else ''
        raise UserError(f'--{key} {name} is unknown; {accepted(kind, name)}{more}')
    return bare


def _convert(found: HeadConfig, cfg: Config, axes: Axes) -> Conversion:
    own = found.is_gfl
    host: Any = found.stock if own else hosts_of_stock_heads()[found.stock]
    if axes.box_weight == 'auto' and not own:  # there is no other to take back
        axes = axes._replace(box_weight=None)
    if axes.quality == 'baseline':
        axes = axes._replace(quality=host.baseline_quality if host.free_axes else None)
    given = {name: value for name, value in found.node.items() if name not in ('type', 'quality', 'box')}
    given = {name: value for name, value in given.items() if value is not None or not name.startswith('loss_')}
    head_cfg = _on_host(host, given, axes)
    if own:
        _keep_axes(head_cfg, found, host)
    try:
        _fit_box_loss(head_cfg, found)
        head = found.build(head_cfg)
    except UserError as error:  # with_deform of FoveaBox, as an example
        if axes.box is not None or own:
            raise
        try:
            conversion = _convert(found, cfg, axes._replace(box='DiracBox'))
        except UserError:
            raise error from None
        conversion.notes.insert(1, f'DiracBox, since GeneralBox does not fit here: {error}')
        return conversion
    _drop_superseded(head_cfg, head)
    _drop_unused(head_cfg, head, found)
    on_boxes = head.box.uses_host_coder and head.host_coder.on_boxes
    if (own or not host.free_axes) and on_boxes and isinstance(head.bbox_coder, DeltaXYWHBBoxCoder):
        head_cfg.setdefault('bbox_coder', dict(ANCHOR_CODER))
    return Conversion(found.key, dict(found.node), head_cfg, head, own, list(notes(found, head_cfg['type'], head, cfg)))


def _on_host(host: Any, given: dict[str, Any], axes: Axes) -> dict[str, Any]:
    """Config of a host's head from the arguments of its stock head."""
    if not host.free_axes and not axes.is_default(host):
        return _on_plane(host, given, axes)
    head_cfg: dict[str, Any] = dict(type=PREFIX + host.__name__, **given)
    if axes.box_weight or axes.quality not in (None, host.default_quality):
        head_cfg['quality'] = axes.quality_cfg(host.default_quality)
    if axes.box not in (None, 'GeneralBox'):
        head_cfg['box'] = dict(type=f'{PREFIX}{axes.box}')
    soft = MODELS.get(axes.quality or host.default_quality).soft_labels
    if not soft and given.get('loss_cls') and takes_quality(given['loss_cls']):
        head_cfg['loss_cls'] = dict(FOCAL_LOSS)
    return head_cfg


def _on_plane(host: Any, given: dict[str, Any], axes: Axes) -> dict[str, Any]:
    """Config for another quality or box than those of a host without free axes."""
    free = free_host(host)
    if takes_quality(given.get('loss_cls') or {}):
        given = dict(given, loss_cls=dict(given['loss_cls'], use_sigmoid=True))  # of GFocalHead, which takes False too
    general = axes.box in (None, 'GeneralBox')
    if general and not axes.box_weight:
        others: list[Any] = list(registered_hosts().values())
        for other in others:  # a host of that quality keeps the names of the layers
            if issubclass(other, free) and not other.free_axes and other.default_quality == axes.quality:
                return dict(type=PREFIX + other.__name__, **_accepted(given, other))
    rest = _accepted(given, free)
    rest.pop('init_cfg', None)  # it names the layers of the other head
    rest.pop('bbox_coder', None)
    head_cfg = _on_host(free, rest, axes)
    if axes.quality == host.default_quality:
        head_cfg.get('quality', {}).update(_quality_arguments(given))
    if general:
        head_cfg['box'] = dict(type=f'{PREFIX}GeneralBox')
        head_cfg['box'] |= {name: given[name] for name in ('reg_max', 'delta', 'loss_dfl') if name in given}
    return head_cfg


def _quality_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``GFocalHead`` that its quality has under other names."""
    names = dict(reg_topk='topk', reg_channels='channels')
    mean = {} if given.get('add_mean', True) else dict(statistics=('topk',))
    return {names[name]: given[name] for name in names if name in given} | mean


def _accepted(given: dict[str, Any], host: type) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in arguments_of(host)}


def _keep_axes(head_cfg: dict[str, Any], found: HeadConfig, host: Any) -> None:
    """Keep a GFL head's class, and the arguments of its quality and box, where they stay what they are."""
    node = found.node
    if head_cfg['type'] == PREFIX + host.__name__:
        head_cfg['type'] = node['type']
    for axis, default in (('quality', host.default_quality), ('box', 'GeneralBox')):
        if node.get(axis) and bare_name(node[axis]['type']) == bare_name(
            head_cfg.get(axis, dict(type=default))['type']
        ):
            asked = {name: value for name, value in head_cfg.get(axis, {}).items() if name != 'type'}
            head_cfg[axis] = dict(node[axis], **asked)


def _fit_box_loss(head_cfg: dict[str, Any], found: HeadConfig) -> None:
    """Replace a loss that compares boxes where the head's box loss is given their code."""
    if 'IoU' in bare_name((head_cfg.get('loss_bbox') or {}).get('type')):
        head = found.build(dict(head_cfg, loss_bbox=CODE_LOSS))
        if head.box.uses_host_coder and not head.host_coder.on_boxes:
            head_cfg['loss_bbox'] = dict(CODE_LOSS)


def _drop_superseded(head_cfg: dict[str, Any], head: Any) -> None:
    """Replace or remove the losses that the head does not use."""
    loss_cls = head_cfg.get('loss_cls')
    if loss_cls and head.quality.soft_labels and not takes_quality(loss_cls):
        del head_cfg['loss_cls']
    given, used = head_cfg.get('loss_bbox'), head.loss_bbox
    if given is None or head.box.uses_host_coder or bare_name(given['type']) == type(used).__name__:
        return
    if 'loss_bbox' in vars(head.box):  # the representation's own, which needs no config here
        del head_cfg['loss_bbox']
    else:  # said in full, since without it some hosts have an IoU loss by default, which would be used
        head_cfg['loss_bbox'] = dict(type=type(used).__name__, loss_weight=weight_of(used))


def _drop_unused(head_cfg: dict[str, Any], head: Any, found: HeadConfig) -> None:
    """Remove arguments without effect: of a branch that is not there, of a coding that is not used."""
    unused = [*(() if head.quality.branch else BRANCH_KEYS), *(() if head.box.uses_host_coder else CODING_KEYS)]
    for name in [name for name in unused if name in head_cfg]:
        rest = {other: value for other, value in head_cfg.items() if other != name}
        try:
            trial = found.build(rest)
        except UserError:  # the host asks for it all the same
            continue
        if getattr(trial.bbox_coder, 'clip_border', True) == getattr(head.bbox_coder, 'clip_border', True):
            del head_cfg[name]
