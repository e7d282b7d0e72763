"""The hook looks at the batch before it goes to the device."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.models.detectors import RPN
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_gfl.engine.hooks import CheckGroundTruthHook, NumClassCheckHook


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


def rpn(num_classes=1):
    model = RPN.__new__(RPN)
    torch.nn.Module.__init__(model)
    model.bbox_head = torch.nn.Identity()
    model.bbox_head.num_classes = num_classes
    return model


def test_a_detector_that_makes_all_labels_0_takes_any_label():
    hook = CheckGroundTruthHook()
    hook.before_train_iter(SimpleNamespace(model=rpn()), 0, batch([[0.0, 0, 1, 1]], [17]))
    with pytest.raises(ValueError, match='photo.jpg: box 0 of 1'):
        hook.before_train_iter(SimpleNamespace(model=rpn()), 0, batch([[0.0, 0, float('nan'), 1]], [17]))


@pytest.mark.parametrize(
    'model, classes, words',
    [
        (dict(bbox_head=3), 'abc', None),
        (
            dict(bbox_head=3),
            'ab',
            r'model\.bbox_head\.num_classes=3, but .* of train_dataloader\.dataset{} has 2 classes',
        ),
        (dict(rpn_head=1, bbox_head=3), 'abc', None),  # of a two-stage detector
        (dict(bbox_head=3), None, None),
    ],
)
def test_num_classes(model, classes, words):
    parts = torch.nn.ModuleDict({name: torch.nn.Identity() for name in model})
    for name, count in model.items():
        parts[name].num_classes = count
    metainfo = dict(classes=classes and tuple(classes))
    parts_of = {
        '': metainfo,
        r'\.datasets\.1': [dict(classes=None), metainfo],
    }  # of MMDetection's ConcatDataset, a list
    for part, meta in parts_of.items():
        loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=meta))
        of = SimpleNamespace(model=parts, train_dataloader=loader, val_dataloader=loader)
        if words is None:
            NumClassCheckHook().before_train_epoch(of)
            NumClassCheckHook().before_val_epoch(of)
        else:
            with pytest.raises(ValueError, match=words.format(part)):
                NumClassCheckHook().before_train_epoch(of)


def test_num_classes_of_a_detector_of_objects_and_background():
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=tuple('abc'))))
    NumClassCheckHook().before_train_epoch(SimpleNamespace(model=rpn(), train_dataloader=loader))


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
