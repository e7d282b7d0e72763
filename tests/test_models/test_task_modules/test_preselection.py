"""Candidates above the score threshold, against MMDetection's ``filter_scores_and_topk``, which sorts all scores."""

import pytest
import torch
from mmdet.models.utils import filter_scores_and_topk

from mmdet_gfl.models.task_modules import preselect, select_topk
from mmdet_gfl.models.task_modules.preselection import Preselection, may_pass_threshold
from mmdet_gfl.ops import LevelPredictions, LocationIndex

SIZES = [(10, 12), (5, 6), (2, 3)]


def levels_of(kind, num_priors=1, num_classes=7, num_images=3):
    """Scores (N, A · C, H, W) of each level; many equal with 'ties', few above 0.5 with 'few', most 0 with 'zeros'."""
    generator = torch.Generator().manual_seed(3)
    levels = [torch.randn(num_images, num_priors * num_classes, *size, generator=generator) for size in SIZES]
    if kind == 'zeros':
        return [(level.sigmoid() - 0.8).clamp(min=0) for level in levels]
    if kind == 'ties':
        levels = [(level * 4).round() / 4 for level in levels]
    return [(level - 2 if kind == 'few' else level).sigmoid() for level in levels]


def predictions_of(levels, num_outputs=7):
    sizes = [level.shape[-2:] for level in levels]
    priors = [level.size(1) // num_outputs for level in levels]
    return LevelPredictions(levels, num_outputs, LocationIndex(sizes, len(levels[0]), priors))


def select(predictions, threshold, top_k):
    """Preselection and candidates of outputs that are scores already.

    The last bit of a sigmoid depends on how many are computed at once.
    """
    preselection = preselect(predictions, torch.clone, threshold, top_k)
    return preselection, select_topk(predictions.gather(preselection.coords), preselection, top_k)


def rows_of(level, image, num_outputs):
    """Outputs (M, num_outputs) of an image, as MMDetection flattens them."""
    return level[image].permute(1, 2, 0).reshape(-1, num_outputs)


def places_of(coords):
    """Index of each location in its level and image, as MMDetection counts them."""
    num_priors = coords.index.num_priors[0]
    return coords.cell * num_priors + coords.prior


@pytest.mark.parametrize('num_priors', [1, 3])
@pytest.mark.parametrize('top_k', [1, 10, 40, 10**4])
@pytest.mark.parametrize('threshold', [-1.0, 0.0, 0.05, 0.5, 2.0])
@pytest.mark.parametrize('kind', ['random', 'ties', 'few', 'zeros'])
def test_candidates_are_those_of_mmdetection(kind, threshold, top_k, num_priors):
    levels = levels_of(kind, num_priors)
    preselection, found = select(predictions_of(levels), threshold, top_k)
    coords = preselection.coords
    of_level, images, places = (values[found.rows] for values in (coords.level, coords.image, places_of(coords)))
    start, counts = 0, [0, 0, 0]
    for image in range(3):
        for number, level in enumerate(levels):
            theirs = filter_scores_and_topk(rows_of(level, image, 7), threshold, top_k)
            ours = slice(start, start + len(theirs[0]))
            start, counts[image] = ours.stop, counts[image] + len(theirs[0])
            assert torch.equal(found.scores[ours], theirs[0])
            assert images[ours].eq(image).all() and of_level[ours].eq(number).all()
            assert torch.equal(rows_of(level, image, 7)[places[ours], found.labels[ours]], found.scores[ours])
            assert len(set(zip(places[ours].tolist(), found.labels[ours].tolist()))) == len(theirs[0])
            if kind in ('random', 'few'):  # else the order of equal scores, and which are kept, is open
                assert torch.equal(found.labels[ours], theirs[1]) and torch.equal(places[ours], theirs[2])
    assert start == len(found.scores) and found.counts == counts


def test_preselected_locations_ascend_without_duplicates():
    preselection, _ = select(predictions_of(levels_of('random', num_priors=3)), 0.3, 20)
    flat_inds = preselection.coords.flat_inds
    assert (flat_inds.diff() > 0).all() and len(flat_inds) > 50
    assert len(preselection.score_floors) == len(flat_inds)


def test_few_locations_are_preselected():
    largest = torch.rand(2, 5000)
    mask, floors = may_pass_threshold(largest, 0.05, 100)
    assert mask.sum(dim=1).tolist() == pytest.approx([100, 100], abs=2)
    assert floors.tolist() == pytest.approx(largest.sort(dim=1).values[:, -100].tolist(), rel=2e-5)
    mask, floors = may_pass_threshold(largest * 0.04, 0.05, 100)
    assert not mask.any() and floors.tolist() == pytest.approx([0.05, 0.05])


@pytest.mark.parametrize('kind', ['random', 'few'])
def test_no_more_locations_are_preselected_than_there_are_candidates(kind):
    for threshold in (0.0, 0.05, 0.5):
        preselection, found = select(predictions_of(levels_of(kind)), threshold, 25)
        assert len(preselection.coords) <= len(found.scores) + 2  # rounding adds one or two


def test_nan_hides_no_other_score():
    # MMDetection's comparison drops the NaN entry alone.
    level = torch.tensor([[0.1, torch.nan], [0.9, torch.nan], [0.3, 0.4]]).t().reshape(1, 2, 1, 3)
    for top_k in (1, 2):
        preselection, found = select(predictions_of([level], 2), 0.05, top_k)
        assert found.scores.tolist() == pytest.approx([0.9, 0.4][:top_k])
        assert preselection.coords.cell[found.rows].tolist() == [1, 2][:top_k]
        assert found.labels.tolist() == [0, 1][:top_k]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_top_k_of_each_level_and_image(dtype):
    # Two images with three cells on level 0 and one on level 1: three locations of image 1, then one of image 0.
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.5], [0.7, 0.6]], dtype=dtype)
    coords = LocationIndex([(1, 3), (1, 1)], 2, [1, 1]).coords(torch.tensor([3, 4, 5, 6]))
    assert coords.image.tolist() == [1, 1, 1, 0] and coords.level.tolist() == [0, 0, 0, 1]
    floors = torch.tensor([0.15, 0.15, 0.15, 0.65], dtype=dtype)
    found = select_topk(scores, Preselection(coords, floors), top_k=3)
    # Image 0: 0.7 on level 1. Image 1: 0.9, 0.8, 0.5 on level 0 (0.3 and 0.2 are too many, 0.1 too low).
    assert found.scores.tolist() == pytest.approx([0.7, 0.9, 0.8, 0.5])
    assert found.rows.tolist() == [3, 0, 1, 2] and found.labels.tolist() == [0, 0, 1, 1]
    assert found.counts == [1, 3]


def test_floors_are_those_of_each_level_and_image():
    # Level and image by level and image the second largest of the locations' largest scores, a little less; else the
    # threshold.
    level = torch.tensor([[[0.9, 0.1, 0.5], [0.2, 0.8, 0.4]], [[0.3, 0.2, 0.1], [0.6, 0.1, 0.7]]]).view(2, 2, 1, 3)
    small = torch.tensor([[0.2], [0.01]]).view(2, 1, 1, 1).expand(2, 2, 1, 1)
    preselection = preselect(predictions_of([level, small], 2), torch.clone, 0.05, 2)
    assert preselection.coords.flat_inds.tolist() == [0, 1, 3, 5, 6]
    assert preselection.score_floors.tolist() == pytest.approx([0.8, 0.8, 0.6, 0.6, 0.05], rel=2e-5)


@pytest.mark.parametrize('num_priors', [1, 3])
def test_outputs_are_gathered_at_the_candidates(num_priors):
    preselection, _ = select(predictions_of(levels_of('random', num_priors)), 0.6, 25)
    coords = preselection.coords
    levels = [torch.randn(3, num_priors * 5, *size).half() for size in SIZES]
    expected = torch.stack(
        [
            rows_of(levels[level], image, 5)[place].float()
            for level, image, place in zip(coords.level, coords.image, places_of(coords))
        ]
    )
    for forms in (levels, [level.to(memory_format=torch.channels_last) for level in levels]):
        outputs = predictions_of(forms, 5).gather(coords)
        assert outputs.dtype is torch.float32 and torch.equal(outputs, expected)


def test_no_candidate():
    preselection, found = select(predictions_of(levels_of('few')), 0.9999, 5)
    assert len(found.scores) == len(preselection.coords) == 0 and preselection.coords.group_sizes == [0] * 9
    assert found.counts == [0, 0, 0]
    outputs = predictions_of([torch.randn(3, 4, *size) for size in SIZES], 4)
    assert outputs.gather(preselection.coords).shape == (0, 4)
