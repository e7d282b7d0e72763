"""Images of a data set as its config's training pipeline makes them, whichever split they are of.

The augmentation is seeded image by image, so that what is read does not depend on the number of workers.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader, Dataset

from mmdet_gfl.benchmark.shorten import innermost
from mmdet_gfl.engine.launch import UserError, build_dataset


class _Failure(str):
    """Why an item could not be made; what a worker raises would come with its traceback inside."""


class _Seeded(Dataset[Any]):
    """Items of a data set, their augmentation seeded one by one: the same whatever the number of workers."""

    def __init__(self, dataset: Any, indices: list[int], seed: int) -> None:
        self.dataset = dataset
        self.indices = indices
        self.seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Any:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(self.seed + number)
        try:
            return self.dataset[self.indices[number]]
        except Exception as error:  # a pipeline is anybody's code
            return _Failure(f'{type(error).__name__}: {error}')


def _as_it_is(item: Any) -> Any:
    return item


def training_dataset(cfg: Config, split: str) -> Any:
    """The data set of a split, with the pipeline of the training.

    Args:
        cfg: The config.
        split: ``'train'``, ``'val'`` or ``'test'``; the latter two in training mode, since a test pipeline leaves the
            boxes in the pixels of the file.

    Raises:
        UserError: The config has no such split or no training pipeline, or the data set cannot be built or is empty.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise UserError(f'the config has no {split}_dataloader, so --split {split} has no data; take another split')
    dataset = copy.deepcopy(loader['dataset'])
    if split != 'train':
        training = innermost((cfg.get('train_dataloader') or {}).get('dataset') or {})
        pipeline = next((node['pipeline'] for node in training if 'pipeline' in node), None)
        if pipeline is None:
            raise UserError(f'--split {split} takes the pipeline of train_dataloader.dataset, and the config has none')
        for node in innermost(dataset):
            node.update(pipeline=copy.deepcopy(pipeline), test_mode=False)
    try:
        own = Config({'default_scope': cfg.get('default_scope'), f'{split}_dataloader': dict(dataset=dataset)})
        built = build_dataset(own, split)
    except Exception as error:  # a data set is anybody's code
        raise UserError(
            f'{split}_dataloader.dataset cannot be built: {type(error).__name__}: {error}. Mend it, or point it '
            f'elsewhere with --cfg-options {split}_dataloader.dataset.data_root=/path/to/data'
        ) from error
    if not len(built):
        raise UserError(f'{split}_dataloader.dataset has no images')
    return built


def samples(dataset: Any, indices: list[int], workers: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the pipeline's output of each image: a dict with ``inputs`` and ``data_samples``.

    Raises:
        UserError: An image cannot be made, or the pipeline does not end in ``PackDetInputs``.
    """
    loader = DataLoader(_Seeded(dataset, indices, seed), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    for index, item in zip(indices, loader):
        if isinstance(item, _Failure):
            raise UserError(
                f'image {index} of the data set cannot be read: {item}. Mend it, or remove it and its entry in the '
                f'annotation file'
            )
        if not (isinstance(item, dict) and 'data_samples' in item):
            raise UserError('the training pipeline does not end in PackDetInputs, so it gives no boxes to measure')
        yield item
