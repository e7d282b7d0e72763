"""The heads of a config: which can be converted, and how they are built for a look."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from torch import nn

from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.registry import hosts_of_stock_heads

#: Where a detector holds the head that is converted; the parts that hold a whole detector.
HEAD_KEYS, WRAPPER_KEYS = ('bbox_head', 'rpn_head'), ('detector', 'module')


class HeadConfig(NamedTuple):
    """A head in the config of a detector.

    Attributes:
        key: Its dotted key, as ``model.bbox_head``.
        node: Its config.
        detector: The config of the detector that holds it.
    """

    key: str
    node: dict[str, Any]
    detector: Mapping[str, Any]

    @property
    def kind(self) -> Any:
        """Its class; None where that is unknown."""
        return class_of(self.node.get('type'))

    @property
    def is_gfl(self) -> bool:
        """True for a GFL head."""
        return isinstance(self.kind, type) and issubclass(self.kind, DenseGFLMixin)

    @property
    def stock(self) -> Any:
        """The class that is converted: MMDetection's, or that which a user's derives from, or a GFL head; else None."""
        kind, hosts = self.kind, hosts_of_stock_heads()
        if kind in hosts or self.is_gfl:
            return kind
        is_users = isinstance(kind, type) and not kind.__module__.startswith('mmdet.')
        return next((base for base in kind.__mro__ if base in hosts), None) if is_users else None

    def build(self, head_cfg: Mapping[str, Any]) -> Any:
        """Another head in its place, on the device ``meta``.

        Raises:
            UserError: It cannot be built.
        """
        parts: dict[str, Any] = {name: self.detector.get(name) for name in ('train_cfg', 'test_cfg')}
        if self.key.endswith('rpn_head'):  # as MMDetection's detectors hand them on
            parts = {name: value.get('rpn', value) if value else value for name, value in parts.items()}
            parts['num_classes'] = head_cfg.get('num_classes', 1)
        with torch.device('meta'), _quiet():
            try:
                return MMDET_MODELS.build(ConfigDict(copy.deepcopy(dict(head_cfg, **parts))))
            except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
                name = bare_name(head_cfg['type'])
                raise UserError(f'{self.key}: {name} cannot be built from this config: {error}') from error


def find_heads(model: Mapping[str, Any], key: str = 'model.') -> Iterator[HeadConfig]:
    """The heads of a detector and of those that it wraps."""
    for name in HEAD_KEYS:
        if isinstance(model.get(name), dict):
            yield HeadConfig(f'{key}{name}', model[name], model)
    for name in WRAPPER_KEYS:
        if isinstance(model.get(name), dict):
            yield from find_heads(model[name], f'{key}{name}.')


def class_of(kind: Any) -> Any:
    """The class of a ``type`` in a config; None where it is unknown."""
    if isinstance(kind, str):
        try:
            return MMDET_MODELS.get(kind)
        except (ImportError, RuntimeError):
            return None
    return kind


def bare_name(kind: Any) -> str:
    """Name of a class, or of a ``type`` in a config, without its scope."""
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def weight_of(loss: nn.Module) -> float:
    """The ``loss_weight`` of a loss; 1 where it has none."""
    return float(getattr(loss, 'loss_weight', 1.0))


def nothing_to_convert(heads: list[HeadConfig], model: Mapping[str, Any]) -> str:
    """The sentence for a config without a head that can be converted."""
    hosts = hosts_of_stock_heads()
    accepted = ', '.join(stock.__name__ for stock in hosts)
    if not heads:
        return (
            f'model.type={bare_name(model.get("type"))} has no bbox_head or rpn_head of its own, so there is nothing '
            f'to convert; accepted heads: {accepted}'
        )
    first = heads[0]
    bases = [base.__name__ for base in getattr(first.kind, '__mro__', ()) if base in hosts]
    nearest = f'; the nearest that can is {bases[0]}' if bases else ''
    two_stage = ' of a two-stage detector' if 'roi_head' in model else ''
    name = bare_name(first.node.get('type'))
    return f'{first.key}.type={name}{two_stage} has no GFL variant{nearest}; accepted: {accepted}'


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what heads log and warn while they are built for a look."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(disabled)
