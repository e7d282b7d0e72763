"""Two gloo processes: losses and gradients of one process with the joint batch, also where a rank has no object.

One pair of processes makes all steps, since its start takes most of the time; the tests read its results.
"""

import math
import multiprocessing

import pytest
import torch
import torch.distributed as dist
from cases import (
    BASELINES,
    DYNAMIC_HOSTS,
    HOSTS,
    PAIRS_OF_PLANE,
    build,
    featmap_sizes,
    flat_rows,
    gfl_config,
    host_config,
    host_features,
    metas,
    named,
    objects,
    stock_config,
    totals,
)
from torch import nn

SIZE = (128, 160)
#: Objects of the ranks' images; last with both, since DDP raises one step after a parameter had no gradient.
SITUATIONS = dict(empty=(4, 0), none=(0, 0), joint=(4, 3))
#: By how much more objects the images of dynamic hosts have: their normalisers are sums of IoUs, which start small.
DENSER = 5
DYNAMIC_QUALITIES = ('AssignedQuality', 'JointQuality', 'DistributionGuidedQuality')
CASES = {
    'GFL': ('ATSS', gfl_config()),
    "MMDetection's GFL": ('ATSS', gfl_config('GFLHead', ours=False)),
    **{f"MMDetection's {host}": (host, stock_config(host)) for host in DYNAMIC_HOSTS},
    **{f'{host} baseline': (host, host_config(host, quality, 'dirac')) for host, quality in BASELINES.items()},
    **{
        ' '.join(point): (point[0], host_config(*point))
        for point in PAIRS_OF_PLANE
        if point[0] in HOSTS and point[1:] != (BASELINES[point[0]], 'dirac')
    },
    **{f'{host} gaussian': (host, host_config(host, 'NoQuality', 'gaussian')) for host in DYNAMIC_HOSTS},
    **{f'{host} {q}': (host, host_config(host, q)) for host in DYNAMIC_HOSTS for q in DYNAMIC_QUALITIES},
    'RTMDet IoUBranch': ('RTMDet', host_config('RTMDet', 'IoUBranch')),
}
OURS = [case for case in CASES if not case.startswith('MMDetection')]


class Loss(nn.Module):
    """A head whose forward is its loss, so that DDP sees the whole step."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, feats, gts, images):
        return totals(self.head.loss_by_feat(*self.head(feats), gts, images))


def batch(host, counts, ranks):
    """Features, objects and meta information of the images of some ranks, all of one size."""
    counts = [count * (DENSER if host in DYNAMIC_HOSTS else 1) for count in counts]
    feats, gts = host_features(host, SIZE, 2), objects(counts, SIZE)
    return [level[ranks] for level in feats], gts[ranks], metas(SIZE, 2)[ranks]


def step(model, *data):
    """Losses of a step, and the gradients by name; None where there is none."""
    model.zero_grad(set_to_none=True)
    losses = model(*data)
    sum(losses.values()).sum().backward()
    head = getattr(model, 'module', model).head
    grads = {name: p.grad if p.grad is None else p.grad.clone() for name, p in head.named_parameters()}
    return {key: value.sum().item() for key, value in losses.items()}, grads


def worker(rank, place):
    from mmdet.utils import register_all_modules
    from mmengine.model import MMDistributedDataParallel

    import mmdet_gfl  # noqa: F401

    register_all_modules()
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{place}/store', rank=rank, world_size=2)
    results = {}
    for case, (host, cfg) in CASES.items():
        model = MMDistributedDataParallel(Loss(build(cfg)))
        assert not model.find_unused_parameters
        for situation, counts in SITUATIONS.items():
            results[case, situation] = step(model, *batch(host, counts, slice(rank, rank + 1)))
    torch.save(results, f'{place}/{rank}.pth')
    dist.barrier()  # as at the end of launch.run
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """Losses and gradients of each of the two ranks by case and situation."""
    place = tmp_path_factory.mktemp('ranks')
    # Forks of one fresh process, so that what both import is imported once.
    multiprocessing.set_forkserver_preload(['mmdet_gfl', 'mmdet.models', 'mmdet.utils', 'mmengine.model'])
    torch.multiprocessing.start_processes(worker, (str(place),), nprocs=2, start_method='forkserver')
    return [torch.load(place / f'{rank}.pth') for rank in range(2)]


@pytest.mark.parametrize('situation', SITUATIONS)
@pytest.mark.parametrize('case', OURS)
def test_no_parameter_is_left_out(ranks, case, situation):
    # DDP itself would have raised in the next step; the averaged gradients are the same on both ranks.
    (one, our_grads), (two, their_grads) = (rank[case, situation] for rank in ranks)
    assert all(math.isfinite(value) for value in [*one.values(), *two.values()])
    assert our_grads.keys() == their_grads.keys()
    for name, grad in our_grads.items():
        assert grad is not None and torch.isfinite(grad).all(), name
        assert torch.equal(grad, their_grads[name]), name


@pytest.mark.parametrize('case', OURS)
def test_two_processes_are_one_with_the_joint_batch(ranks, case):
    host, cfg = CASES[case]
    model, data = Loss(build(cfg)), batch(host, SITUATIONS['joint'], slice(0, 2))
    losses, grads = step(model, *data)
    assert_above_the_floors(model.head, *data)
    for key, value in losses.items():
        mean = sum(rank[case, 'joint'][0][key] for rank in ranks) / 2
        assert mean == pytest.approx(value, rel=1e-5), key
        assert value > 0, key
    for name, grad in ranks[0][case, 'joint'][1].items():
        limit = max(1e-4 * grads[name].abs().max().item(), 1e-8)
        torch.testing.assert_close(grad, grads[name], rtol=0, atol=limit, msg=named(name))


def assert_above_the_floors(head, feats, gts, images):
    """ATSS and RTMDet divide by at least 1 on each rank, which is 2 for two ranks together."""
    outs = head(feats)
    seen = []
    head.normalizers, normalizers = lambda *args: seen.append(args) or normalizers(*args), head.normalizers
    head.loss_by_feat(*outs, gts, images)
    targets, weights = seen[0]
    assert weights.sum() > 2 and targets.avg_factor > 2


@pytest.mark.parametrize('situation', SITUATIONS)
@pytest.mark.parametrize('rank', [0, 1])
@pytest.mark.parametrize('name', ['GFL', *DYNAMIC_HOSTS])
def test_ours_is_mmdetections(ranks, name, rank, situation):
    our_losses, our_grads = ranks[rank]['GFL' if name == 'GFL' else f'{name} baseline', situation]
    their_losses, their_grads = ranks[rank][f"MMDetection's {name}", situation]
    assert our_losses == pytest.approx(their_losses, rel=1e-5, abs=1e-7)
    for layer, grad in their_grads.items():
        limit = 1e-4 * grad.abs().max().item()
        torch.testing.assert_close(our_grads[layer], grad, rtol=0, atol=limit, msg=named(layer))


@pytest.mark.parametrize('case', OURS)
def test_an_empty_rank(ranks, case):
    for rank, situation in ((1, 'empty'), (0, 'none'), (1, 'none')):
        losses, _ = ranks[rank][case, situation]
        assert all(value == 0 for key, value in losses.items() if key != 'loss_cls')
        softmax = case.startswith(('SSD baseline', 'SSD NoQuality'))  # mines background for its positives only
        assert (losses['loss_cls'] > 0) != softmax
    assert ranks[0][case, 'empty'][0]['loss_bbox'] > 0


def alone(case):
    """Losses of the rank with objects by itself, its positives, and the weights of their boxes."""
    host, cfg = CASES[case]
    head, (feats, gts, images) = build(cfg), batch(host, SITUATIONS['empty'], slice(0, 1))
    outs = head(feats)
    losses = {key: value.item() for key, value in totals(head.loss_by_feat(*outs, gts, images)).items()}
    targets = head.targets(head.assignment_batch(featmap_sizes(outs[0]), gts, images))
    logits = flat_rows(outs[0], head.cls_out_channels)
    return losses, len(targets.pos), logits[targets.pos.flat_inds].sigmoid().amax(1).sum().item()


def test_normalizers_of_gfl_are_means_over_the_ranks(ranks):
    # Rank 1 has no object. Its class loss counts one positive, so with P positives on rank 0 both divide by
    # (P + 1) / 2; the box losses divide by half the weights of rank 0, or by 1 where that is less.
    two, (one, count, weights) = ranks[0]['GFL', 'empty'][0], alone('GFL')
    assert two['loss_cls'] == pytest.approx(one['loss_cls'] * count / ((count + 1) / 2), rel=1e-5)
    assert two['loss_bbox'] == pytest.approx(one['loss_bbox'] * max(weights, 1) / max(weights / 2, 1), rel=1e-5)


@pytest.mark.parametrize('host', HOSTS)
def test_normalizers_are_means_over_the_ranks(ranks, host):
    two, (one, count, _) = ranks[0][f'{host} baseline', 'empty'][0], alone(f'{host} baseline')
    # Alone / mean over the two ranks, the empty one of which counts an image, one positive, or nothing.
    classes = dict(FCOS=2.0, Fovea=(count + 1) / ((count + 2) / 2)).get(host, count / ((count + 1) / 2))
    assert two['loss_cls'] == pytest.approx(one['loss_cls'] * classes, rel=1e-4)
    boxes = dict(FCOS=2.0, Fovea=2.0).get(host, classes)
    if host != 'ATSS':  # whose box normaliser has a lower bound, see above
        assert two['loss_bbox'] == pytest.approx(one['loss_bbox'] * boxes, rel=1e-4)
