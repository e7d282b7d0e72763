"""What survives the score threshold, against MMDetection's ``filter_scores_and_topk``, which sorts all scores."""

import pytest
import torch
from mmdet.models.utils import filter_scores_and_topk

from mmdet_gfl.models.task_modules.candidates import best_of_groups, find_candidates, outputs_at, worth_a_look

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
    return find_candidates(levels, width, torch.clone, threshold, top_k)


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
    found = find(levels, threshold, top_k)
    ordered = [values[found.order] for values in found[:5]]
    at = 0
    for image in range(3):
        for number, level in enumerate(levels):
            theirs = filter_scores_and_topk(rows(level, image, 7), threshold, top_k)
            count = found.counts[number][image]
            scores, labels, images, of_level, places = (values[at : at + count] for values in ordered)
            at += count
            assert torch.equal(scores, theirs[0])
            assert images.eq(image).all() and of_level.eq(number).all()
            assert torch.equal(rows(level, image, 7)[places, labels], scores)
            assert len(set(zip(places.tolist(), labels.tolist()))) == count
            if kind in ('random', 'few'):  # else which of the tied come first, or are kept, is open
                assert torch.equal(labels, theirs[1]) and torch.equal(places, theirs[2])
    assert at == len(found.scores)


def test_memory_is_read_in_order():
    found = find(levels_of('random'), 0.3, 20)
    where = torch.stack((found.levels, found.images, found.places, found.labels), dim=1).tolist()
    assert where == sorted(where) and len(where) > 50


def test_few_locations_are_looked_at():
    largest = torch.rand(2, 5000)
    looked = worth_a_look(largest, 0.05, 100)
    assert len(looked.places) < 220 and set(looked.images.tolist()) == {0, 1}
    assert len(worth_a_look(largest * 0.04, 0.05, 100).places) == 0


def test_nan_hides_no_other_score():
    # MMDetection's comparison drops the NaN entry alone.
    level = torch.tensor([[0.1, torch.nan], [0.9, torch.nan], [0.3, 0.4]]).t().reshape(1, 2, 1, 3)
    for top_k in (1, 2):
        found = find([level], 0.05, top_k, width=2)
        assert found.scores[found.order].tolist() == pytest.approx([0.9, 0.4][:top_k])
        assert found.places[found.order].tolist() == [1, 2][:top_k]
        assert found.labels[found.order].tolist() == [0, 1][:top_k]


def test_top_k_of_each_group():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.6], [0.3, 0.5]])
    best = best_of_groups(scores, torch.tensor([0, 0, 2, 0]), torch.tensor([0.15, 0.0, 0.65]), top_k=3)
    # group 0: 0.9, 0.8, 0.5 (0.3 and 0.2 are too many, 0.1 too low); group 1 has nothing; group 2: 0.7
    assert best.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.5])
    assert best.rows.tolist() == [0, 1, 2, 3] and best.columns.tolist() == [0, 1, 0, 1]
    assert best.counts.tolist() == [3, 0, 1] and best.order.tolist() == [0, 1, 3, 2]


@pytest.mark.parametrize('num_priors', [1, 3])
def test_outputs(num_priors):
    found = find(levels_of('random', num_priors), 0.6, 25)
    levels = [torch.randn(3, num_priors * 5, *size).half() for size in SIZES]
    expected = torch.stack(
        [
            rows(levels[level], image, 5)[place].float()
            for level, image, place in zip(found.levels, found.images, found.places)
        ]
    )
    for forms in (levels, [level.to(memory_format=torch.channels_last) for level in levels]):
        outputs = outputs_at(forms, 5, found)
        assert outputs.dtype is torch.float32 and torch.equal(outputs, expected)


def test_nothing_found():
    found = find(levels_of('few'), 0.9999, 5)
    assert len(found.scores) == len(found.order) == 0 and found.counts == [[0, 0, 0]] * 3
    assert outputs_at([torch.randn(3, 4, *size) for size in SIZES], 4, found).shape == (0, 4)
