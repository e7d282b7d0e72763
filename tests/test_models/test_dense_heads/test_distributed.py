"""Two gloo processes, one of them without an object: as MMDetection's head, no hang, no parameter left out."""

import datetime
import math

import pytest
import torch
import torch.distributed as dist
from cases import BASELINES, HOSTS, build, features, gfl_config, host_config, host_features, metas, objects, totals
from torch import nn
from torch.nn.parallel import DistributedDataParallel

SIZE = (128, 160)


class Loss(nn.Module):
    """A head whose forward is its loss, so that DDP sees the whole step."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, feats, gts, images):
        return totals(self.head.loss_by_feat(*self.head(feats), gts, images))


def step(rank, counts, name, ours):
    """Two steps on a rank's own images; the losses and averaged gradients of the second."""
    model = DistributedDataParallel(Loss(build(gfl_config(name, ours=ours))))
    gts = objects([counts[rank]], SIZE, seed=rank + 5)
    for _ in range(2):  # DDP says at the second step which parameters got no gradient at the first
        model.zero_grad()
        losses = model(features(SIZE, 1), gts, metas(SIZE, 1))
        sum(losses.values()).sum().backward()
    return losses, {key: p.grad.clone() for key, p in model.module.head.named_parameters()}


def worker(rank, counts, place):
    from mmdet.utils import register_all_modules

    import mmdet_gfl  # noqa: F401

    register_all_modules()
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{place}', rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60))
    our_losses, our_grads = step(rank, counts, 'mmdet_gfl.GFLHead', True)
    if max(counts):
        assert our_losses['loss_bbox'] > 0 or not counts[rank]
    assert all(torch.isfinite(value) for value in our_losses.values())
    their_losses, their_grads = step(rank, counts, 'GFLHead', False)
    for key, value in their_losses.items():
        torch.testing.assert_close(our_losses[key], value.reshape(()), rtol=1e-5, atol=1e-7)
    for key, grad in their_grads.items():
        torch.testing.assert_close(our_grads[key], grad, rtol=0, atol=1e-4 * grad.abs().max().item())
    for key, grad in our_grads.items():
        both = [torch.empty_like(grad) for _ in range(2)]
        dist.all_gather(both, grad)
        assert torch.equal(both[0], both[1]) and torch.isfinite(grad).all(), key
    dist.destroy_process_group()


@pytest.mark.parametrize('counts', [(4, 2), (5, 0), (0, 0)], ids=str)
def test_two_processes(counts, tmp_path):
    torch.multiprocessing.spawn(worker, (counts, tmp_path / 'store'), nprocs=2)


def alone(rank, results, place):
    from mmdet.utils import register_all_modules

    import mmdet_gfl  # noqa: F401

    register_all_modules()
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{place}', rank=rank, world_size=2)
    head = build(gfl_config())
    losses = totals(head.loss_by_feat(*head(features(SIZE, 1)), objects([4 * (1 - rank)], SIZE), metas(SIZE, 1)))
    results[rank] = {key: value.item() for key, value in losses.items()}
    dist.destroy_process_group()


def test_normalizers_are_means_over_the_ranks(tmp_path):
    # Rank 1 has no object. Its class loss counts one positive, so with P positives on rank 0 both divide by
    # (P + 1) / 2; the box losses divide by half the weights of rank 0, or by 1 where that is less.
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(alone, (results, tmp_path / 'store'), nprocs=2)
        two = dict(results)
    head = build(gfl_config())
    gts = objects([4], SIZE)
    outs = head(features(SIZE, 1))
    one = {key: value.item() for key, value in totals(head.loss_by_feat(*outs, gts, metas(SIZE, 1))).items()}
    aim = head.targets([tuple(level.shape[-2:]) for level in outs[0]], gts, metas(SIZE, 1), None)
    count = len(aim.pos)
    logits = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, 5) for level in outs[0]])[aim.pos]
    weights = logits.sigmoid().amax(1).sum().item()
    assert two[0]['loss_cls'] == pytest.approx(one['loss_cls'] * count / ((count + 1) / 2), rel=1e-5)
    expected = one['loss_bbox'] * max(weights, 1) / max(weights / 2, 1)
    assert two[0]['loss_bbox'] == pytest.approx(expected, rel=1e-5)
    assert two[1]['loss_bbox'] == 0 and two[1]['loss_cls'] > 0


# Every host ---------------------------------------------------------------------------------------------------------


def host_step(rank, host, *axes):
    """Two steps of a host; the losses of the second. The gradients must be the same on both ranks."""
    model = DistributedDataParallel(Loss(build(host_config(host, *axes))))
    gts = objects([4 * (1 - rank)], SIZE)
    for _ in range(2):  # DDP says at the second step which parameters got no gradient at the first
        model.zero_grad()
        losses = model(host_features(host, SIZE, 1), gts, metas(SIZE, 1))
        sum(losses.values()).sum().backward()
    for key, parameter in model.module.head.named_parameters():
        both = [torch.empty_like(parameter.grad) for _ in range(2)]
        dist.all_gather(both, parameter.grad)
        assert torch.equal(both[0], both[1]) and torch.isfinite(parameter.grad).all(), (host, axes, key)
    return {key: value.item() for key, value in losses.items()}


def hosts_worker(rank, results, place):
    """Each host at its default and its baseline: rank 0 has four objects, rank 1 none."""
    from mmdet.utils import register_all_modules

    import mmdet_gfl  # noqa: F401

    register_all_modules()
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{place}', rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60))
    for host in HOSTS:
        results[host, 'default', rank] = host_step(rank, host)
        results[host, 'baseline', rank] = host_step(rank, host, BASELINES[host], 'dirac')
    dist.destroy_process_group()


def test_every_host_on_two_processes_of_which_one_is_empty(tmp_path):
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(hosts_worker, (results, tmp_path / 'store'), nprocs=2)
        results = dict(results)
    for host in HOSTS:
        head = build(host_config(host, BASELINES[host], 'dirac'))
        feats, gts = host_features(host, SIZE, 1), objects([4], SIZE)
        alone = {k: v.item() for k, v in totals(head.loss_by_feat(*head(feats), gts, metas(SIZE, 1))).items()}
        aim = head.targets([tuple(level.shape[-2:]) for level in head(feats)[0]], gts, metas(SIZE, 1), None)
        count = len(aim.pos)
        # Alone / mean over the two ranks, the empty one of which counts an image, one positive, or nothing.
        classes = dict(FCOS=2.0, Fovea=(count + 1) / ((count + 2) / 2)).get(host, count / ((count + 1) / 2))
        assert results[host, 'baseline', 0]['loss_cls'] == pytest.approx(alone['loss_cls'] * classes, rel=1e-4)
        boxes = dict(FCOS=2.0, Fovea=2.0).get(host, classes)
        if host != 'ATSS':  # whose box normaliser has a lower bound, see above
            assert results[host, 'baseline', 0]['loss_bbox'] == pytest.approx(alone['loss_bbox'] * boxes, rel=1e-4)
        for name in ('default', 'baseline'):
            empty = results[host, name, 1]
            assert empty['loss_bbox'] == 0 and all(math.isfinite(value) for value in empty.values())
            assert empty['loss_cls'] > 0 or (host, name) == ('SSD', 'baseline')  # which mines for its positives only
