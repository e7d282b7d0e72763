"""Every head on a device that is not the CPU, a fake one where there is none: results, and host synchronizations."""

import copy
from functools import cache

import pytest
import torch
from cases import (
    BASELINES,
    DYNAMIC_HOSTS,
    HOSTS,
    PAIRS_OF_PLANE,
    assert_same_detections,
    build,
    features,
    gfl_config,
    host_config,
    host_features,
    metas,
    objects,
    totals,
)
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

from mmdet_gfl.analysis.fake_gpu import DEVICE, FakeGPU, FakeGPUTensor, moved, values

SIZE = (160, 224)


def outputs(head, feats, half=False):
    """Levels of each output, as leaves; logits in half precision, as autocast's convolutions give them."""
    kinds = [[level.detach() for level in levels] for levels in head(feats)]
    if half:
        kinds = [[level.half() if n != 1 else level for level in levels] for n, levels in enumerate(kinds)]
    return [[level.requires_grad_() for level in levels] for levels in kinds]


def step(head, outs, *targets):
    """Losses, and the gradients to the outputs."""
    losses = totals(head.loss_by_feat(*outs, *targets))
    total = sum(value for key, value in losses.items() if 'loss' in key)
    return losses, torch.autograd.grad(total, [level for levels in outs for level in levels], allow_unused=True)


def on_gpu(head, outs, *targets):
    """The same on the fake GPU, with values of the CPU, and the host synchronizations."""
    head = copy.deepcopy(head)
    with FakeGPU() as gpu:
        head.to(DEVICE)
        there = moved(outs), *moved(list(targets))
        before = len(gpu.host_syncs)
        losses, gradients = step(head, *there)
        assert all(isinstance(value, FakeGPUTensor) for value in [*losses.values(), gradients[0]])
        return values(losses), values(gradients), gpu.host_syncs[before:]


def assert_trains_the_same(head, feats, counts, half=False):
    targets = objects(counts, SIZE), metas(SIZE, len(counts))
    outs = outputs(head, feats, half)
    losses, gradients = step(head, outs, *targets)
    theirs, their_gradients, syncs = on_gpu(head, outs, *targets)
    torch.testing.assert_close(theirs, losses, rtol=1e-6, atol=1e-7)
    for gradient, their in zip(gradients, their_gradients):
        assert (gradient is None) == (their is None)
        if gradient is not None:
            torch.testing.assert_close(their, gradient, rtol=1e-5, atol=1e-8)
    return syncs


@pytest.mark.parametrize(('host', 'quality', 'box'), PAIRS_OF_PLANE)
def test_losses_and_gradients(host, quality, box):
    head = MODELS.build(host_config(host, quality, box))
    assert_trains_the_same(head, host_features(host, SIZE, 2), [3, 0])


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('ours', [True, False])
def test_gfl_head(ours, half):
    assert_trains_the_same(build(gfl_config(ours=ours)), features(SIZE, 2), [3, 2], half)


@pytest.mark.parametrize('counts', [[0, 0], [1, 0]])
@pytest.mark.parametrize('host', BASELINES)
def test_without_objects(host, counts):
    assert_trains_the_same(MODELS.build(host_config(host)), host_features(host, SIZE, 2), counts)


NOT_FINITE = [
    [torch.nan] * 4,
    [20, 30, torch.nan, 90],
    [20, 30, torch.inf, 90],
    [-torch.inf, 30, 80, 90],
    [-torch.inf, -torch.inf, torch.inf, torch.inf],
]
NO_FINITE_AREA = [[-1e30, -1e30, 1e30, 1e30]]
INVERTED = [[80, 30, 20, 90], [20, 90, 80, 30], [80, 90, 20, 30], [-10, -20, -30, -40], [900, 900, 800, 800]]
ODD_OBJECTS = [(host, boxes) for host in BASELINES for boxes in (NOT_FINITE, INVERTED)]
ODD_OBJECTS += [(host, NO_FINITE_AREA) for host in ('Retina', 'SSD', *DYNAMIC_HOSTS)]


def among(gts, boxes):
    """An image's objects, with invalid boxes between its first and the others."""
    odd = InstanceData(bboxes=torch.tensor(boxes), labels=torch.zeros(len(boxes), dtype=torch.long))
    return InstanceData.cat([gts[:1], odd, gts[1:]])


@cache
def losses_of_two_images(host, **changes):
    """A head, its outputs, and its losses on the fake GPU."""
    torch.manual_seed(0)
    head = MODELS.build(host_config(host, **changes))
    outs = outputs(head, host_features(host, SIZE, 2))
    return head, outs, on_gpu(head, outs, objects([2, 2], SIZE), metas(SIZE, 2))[0]


@pytest.mark.parametrize(('host', 'boxes'), ODD_OBJECTS)
def test_objects_that_are_not_finite_or_not_ordered_are_matched_to_nothing(host, boxes):
    # On the CPU they raise; on a GPU they are not validated, see CheckGroundTruthHook.
    head, outs, expected = losses_of_two_images(host)
    first, second = objects([2, 2], SIZE)
    found = on_gpu(head, outs, [among(first, boxes), second], metas(SIZE, 2))[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ('host', 'changes'), [('ATSS', {}), ('FCOS', dict(center_sampling=False)), ('Retina', {}), ('Fovea', {})]
)
def test_mmdetections_assignment_matches_these_objects_to_nothing_either(host, changes):
    head, outs, expected = losses_of_two_images(host, **changes)

    class Overridden(type(head)):
        def get_targets(self, *args, **kwargs):
            return super().get_targets(*args, **kwargs)

    head = copy.deepcopy(head)
    head.__class__ = Overridden
    first, second = objects([2, 2], SIZE)
    odd = among(first, INVERTED + NOT_FINITE)
    torch.testing.assert_close(on_gpu(head, outs, [odd, second], metas(SIZE, 2))[0], expected, rtol=1e-6, atol=1e-7)


#: The host needs the number of positives, and that of each level; where objects claim cells, the number of these; and
#: MMDetection's GIoULoss asks whether there is any weight, and copies a number.
SYNCS = dict(ATSS=4, FCOS=5, Retina=5, Fovea=5, SSD=5)


@pytest.mark.parametrize('host', HOSTS)
def test_the_number_of_host_syncs_is_that_of_any_images_and_objects(host):
    head = MODELS.build(host_config(host))
    for counts in ([3, 2], [1, 40, 7, 0, 12]):
        syncs = assert_trains_the_same(head, host_features(host, SIZE, len(counts)), counts)
        assert len(syncs) == SYNCS[host], syncs


@pytest.mark.parametrize('host', HOSTS)
def test_assignment_synchronizes_for_numbers_of_cells_and_positives_alone(host):
    head = MODELS.build(host_config(host))
    sizes = [tuple(level.shape[-2:]) for level in host_features(host, SIZE, 1)]
    with FakeGPU() as gpu:
        head.to(DEVICE)
        gts = moved(objects([3, 2, 9], SIZE))
        head.targets(head.assignment_batch(sizes, gts, metas(SIZE, 3)))  # the first time copies tables
        before = len(gpu.host_syncs)
        head.targets(head.assignment_batch(sizes, gts, metas(SIZE, 3)))
    asked = [sync.partition(' ')[0] for sync in gpu.host_syncs[before:]]
    cells = [] if host == 'ATSS' else ['aten.repeat_interleave.Tensor']
    assert asked == [*cells, 'aten.nonzero.default', 'aten._to_copy.default']  # positives, and those of each level


@pytest.mark.parametrize(('with_distribution', 'rescale'), [(None, False), ('full', True)])
@pytest.mark.parametrize('host', BASELINES)
def test_detections(host, with_distribution, rescale):
    head = MODELS.build(host_config(host)).eval()
    head.test_cfg.with_distribution = with_distribution
    with torch.no_grad():
        outs = head(host_features(host, SIZE, 2))
    outs = [[level + torch.rand_like(level) for level in levels] for levels in outs]  # no equal scores
    arguments = dict(batch_img_metas=metas(SIZE, 2, scale=(0.5, 0.8)), rescale=rescale)
    here = head.predict_by_feat(*outs, **arguments)
    there = copy.deepcopy(head)
    with FakeGPU():
        there.to(DEVICE)
        results = values(there.predict_by_feat(*moved(outs), **arguments))
    assert_same_detections(results, here, least=50)
    if with_distribution:
        for ours, theirs in zip(results, here):
            torch.testing.assert_close(ours.bbox_std.sort(dim=0).values, theirs.bbox_std.sort(dim=0).values)


@pytest.mark.parametrize('host', HOSTS)
def test_decoding_synchronizes_as_often_for_any_number_of_images(host):
    head = MODELS.build(host_config(host, BASELINES[host], 'dirac')).eval()
    head.test_cfg.min_bbox_size = -1  # which MMDetection filters by image by image
    counts = []
    for images in (2, 5):
        there = copy.deepcopy(head)
        with FakeGPU() as gpu, torch.no_grad():
            there.to(DEVICE)
            outs = there(moved(host_features(host, SIZE, images)))
            for _ in range(2):
                before = len(gpu.host_syncs)
                there.predict_by_feat(*outs, batch_img_metas=metas(SIZE, images), with_nms=False)
        counts.append(len(gpu.host_syncs) - before)
    # Numbers of locations, of those of each level, of candidates, of those of each level; two tables of a delta coder
    assert counts == [6 if host in ('ATSS', 'Retina', 'SSD') else 4] * 2, gpu.host_syncs[before:]
