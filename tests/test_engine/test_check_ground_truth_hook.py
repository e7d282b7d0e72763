"""The hook looks at the batch before it goes to the device."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_gfl.engine.hooks import CheckGroundTruthHook


def batch(boxes, labels):
    sample = DetDataSample(metainfo=dict(img_path='photo.jpg'))
    sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes), labels=torch.tensor(labels))
    return dict(inputs=[torch.zeros(3, 8, 8)], data_samples=[sample])


def runner(**head):
    return SimpleNamespace(model=SimpleNamespace(**({'bbox_head': SimpleNamespace(**head)} if head else {})))


def test_good_batches_pass():
    CheckGroundTruthHook().before_train_iter(runner(num_classes=3), 0, batch([[0.0, 0, 1, 1]], [2]))


def test_a_model_without_a_dense_head_passes():
    CheckGroundTruthHook().before_train_iter(runner(), 0, batch([[0.0, 0, 1, 1]], [7]))


@pytest.mark.parametrize(
    'boxes, labels, words',
    [
        ([[0.0, 0, 1, 1], [float('nan'), 0, 1, 1]], [0, 0], 'photo.jpg: box 1 of 2'),
        ([[0.0, 0, 1, 1]], [3], 'photo.jpg: label 3.*num_classes=3'),
    ],
)
def test_bad_batches_are_named(boxes, labels, words):
    with pytest.raises(ValueError, match=words):
        CheckGroundTruthHook().before_train_iter(runner(num_classes=3), 0, batch(boxes, labels))
