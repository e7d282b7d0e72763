"""What survives the score threshold, against MMDetection's ``filter_scores_and_topk``, which sorts all scores."""

import pytest
import torch
from mmdet.models.utils import filter_scores_and_topk

from mmdet_gfl.models.task_modules.candidates import Looked, best_of, look, outputs_at, worth_a_look

SIZES = [(10, 12), (5, 6), (2, 3)]


def levels_of(kind, num_priors=1, num_classes=7, images=3):
    """Scores (N, A · C, H, W) of some levels; many equal with 'ties', few above 0.5 with 'few', most 0 with 'zeros'."""
    generator = torch.Generator().manual_seed(3)
    levels = [torch.randn(images, num_priors * num_classes, *size, generator=generator) for size in SIZES]
    if kind == 'zeros':
        return [(level.sigmoid() - 0.8).clamp(min=0) for level in levels]
    if kind == 'ties':
        levels = [(level * 4).round() / 4 for level in levels]
    return [(level - 2 if kind == 'few' else level).sigmoid() for level in levels]


def find(levels, threshold, top_k, width=7):
    """What outputs would be are scores already: a sigmoid's last bit depends on how many are computed at once."""
    looked = look(levels, width, torch.clone, threshold, top_k)
    return looked, best_of(outputs_at(levels, width, looked), looked, top_k)


def rows(level, image, width):
    """Outputs (M, width) of an image, as MMDetection flattens them."""
    return level[image].permute(1, 2, 0).reshape(-1, width)


@pytest.mark.agreement
@pytest.mark.parametrize('num_priors', [1, 3])
@pytest.mark.parametrize('top_k', [1, 10, 40, 10**4])
@pytest.mark.parametrize('threshold', [-1.0, 0.0, 0.05, 0.5, 2.0])
@pytest.mark.parametrize('kind', ['random', 'ties', 'few', 'zeros'])
def test_candidates_are_those_of_mmdetection(kind, threshold, top_k, num_priors):
    levels = levels_of(kind, num_priors)
    looked, found = find(levels, threshold, top_k)
    of_level, images, places = (values[found.rows] for values in (looked.levels, looked.images, looked.places))
    at, counts = 0, [0, 0, 0]
    for image in range(3):
        for number, level in enumerate(levels):
            theirs = filter_scores_and_topk(rows(level, image, 7), threshold, top_k)
            ours = slice(at, at + len(theirs[0]))
            at, counts[image] = ours.stop, counts[image] + len(theirs[0])
            assert torch.equal(found.scores[ours], theirs[0])
            assert images[ours].eq(image).all() and of_level[ours].eq(number).all()
            assert torch.equal(rows(level, image, 7)[places[ours], found.labels[ours]], found.scores[ours])
            assert len(set(zip(places[ours].tolist(), found.labels[ours].tolist()))) == len(theirs[0])
            if kind in ('random', 'few'):  # else which of the tied come first, or are kept, is open
                assert torch.equal(found.labels[ours], theirs[1]) and torch.equal(places[ours], theirs[2])
    assert at == len(found.scores) and found.counts == counts


def test_memory_is_read_in_order():
    looked, _ = find(levels_of('random', num_priors=3), 0.3, 20)
    where = torch.stack((looked.levels, looked.images, looked.places), dim=1).tolist()
    assert where == sorted(where) and len(where) > 50
    counted = [[where_is[:2] for where_is in where].count([n, image]) for n in range(3) for image in range(3)]
    assert sum(looked.counts, []) == counted


def test_few_locations_are_looked_at():
    largest = torch.rand(2, 5000)
    worth, floors = worth_a_look(largest, 0.05, 100)
    assert worth.sum(dim=1).tolist() == pytest.approx([100, 100], abs=2)
    assert floors.tolist() == pytest.approx(largest.sort(dim=1).values[:, -100].tolist(), rel=2e-5)
    worth, floors = worth_a_look(largest * 0.04, 0.05, 100)
    assert not worth.any() and floors.tolist() == pytest.approx([0.05, 0.05])


@pytest.mark.parametrize('kind', ['random', 'few'])
def test_no_more_locations_are_looked_at_than_scores_are_found(kind):
    for threshold in (0.0, 0.05, 0.5):
        looked, found = find(levels_of(kind), threshold, 25)
        assert len(looked.places) <= len(found.scores) + 2  # rounding lets one or the other in


def test_nan_hides_no_other_score():
    # MMDetection's comparison drops the NaN entry alone.
    level = torch.tensor([[0.1, torch.nan], [0.9, torch.nan], [0.3, 0.4]]).t().reshape(1, 2, 1, 3)
    for top_k in (1, 2):
        looked, found = find([level], 0.05, top_k, width=2)
        assert found.scores.tolist() == pytest.approx([0.9, 0.4][:top_k])
        assert looked.places[found.rows].tolist() == [1, 2][:top_k]
        assert found.labels.tolist() == [0, 1][:top_k]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_top_k_of_each_level_and_image(dtype):
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.5], [0.7, 0.6]], dtype=dtype)
    looked = Looked(
        levels=torch.tensor([0, 0, 0, 1]),
        images=torch.tensor([1, 1, 1, 0]),
        places=torch.arange(4),
        floors=torch.tensor([0.15, 0.15, 0.15, 0.65], dtype=dtype),
        counts=[[0, 3], [1, 0]],
    )
    found = best_of(scores, looked, top_k=3)
    # image 0: 0.7 on level 1; image 1: 0.9, 0.8, 0.5 on level 0 (0.3 and 0.2 are too many, 0.1 too low)
    assert found.scores.tolist() == pytest.approx([0.7, 0.9, 0.8, 0.5])
    assert found.rows.tolist() == [3, 0, 1, 2] and found.labels.tolist() == [0, 0, 1, 1]
    assert found.counts == [1, 3]


@pytest.mark.parametrize('num_priors', [1, 3])
def test_outputs(num_priors):
    looked, _ = find(levels_of('random', num_priors), 0.6, 25)
    levels = [torch.randn(3, num_priors * 5, *size).half() for size in SIZES]
    expected = torch.stack(
        [
            rows(levels[level], image, 5)[place].float()
            for level, image, place in zip(looked.levels, looked.images, looked.places)
        ]
    )
    for forms in (levels, [level.to(memory_format=torch.channels_last) for level in levels]):
        outputs = outputs_at(forms, 5, looked)
        assert outputs.dtype is torch.float32 and torch.equal(outputs, expected)


def test_nothing_found():
    looked, found = find(levels_of('few'), 0.9999, 5)
    assert len(found.scores) == len(looked.places) == 0 and looked.counts == [[0, 0, 0]] * 3
    assert found.counts == [0, 0, 0]
    assert outputs_at([torch.randn(3, 4, *size) for size in SIZES], 4, looked).shape == (0, 4)
