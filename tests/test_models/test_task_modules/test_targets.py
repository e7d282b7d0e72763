"""An assignment's input and result, and measures of the positives, by hand."""

import pytest
import torch
from cases import grid_batch, row_targets
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import (
    AssignmentBatch,
    Locations,
    Positives,
    build_targets,
)
from mmdet_gfl.ops import LevelPredictions, LocationIndex

# AssignmentBatch ----------------------------------------------------------------------------------------------------


def batch_with_predictions(dtype=torch.float32):
    """Two images, a level of 1 x 2 cells with one prior and one of 1 x 1 cells with two; outputs numbered from 0."""
    index = LocationIndex([(1, 2), (1, 1)], 2, [1, 2])
    kinds = []
    for num_outputs in (3, 4):
        count = iter(range(10**3))
        levels = []
        for (h, w), a in zip(index.featmap_sizes, index.num_priors):
            rows = torch.tensor([next(count) for _ in range(2 * h * w * a * num_outputs)], dtype=dtype)
            level = rows.view(2, h, w, a * num_outputs).permute(0, 3, 1, 2).contiguous()
            levels.append(level.requires_grad_())
        kinds.append(LevelPredictions(levels, num_outputs, index))
    boxes = [torch.tensor([[0.0, 0, 8, 8]]), torch.zeros(0, 4)]
    gts = grid_batch(index, boxes).batch_gt_instances
    return AssignmentBatch(index, gts, [{}, {}], None, *kinds)


def test_predictions_of_each_image_by_hand():
    # Level 0 holds rows 0, 1 of image 0 and 2, 3 of image 1; level 1 rows 4, 5 of image 0 and 6, 7 of image 1.
    cls_scores, bbox_preds = batch_with_predictions().predictions()
    rows = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7]])
    assert torch.equal(cls_scores, (rows[..., None] * 3 + torch.arange(3)).float())
    assert torch.equal(bbox_preds, (rows[..., None] * 4 + torch.arange(4)).float())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_predictions_are_detached_and_at_least_float32(dtype):
    batch = batch_with_predictions(dtype)
    for values in batch.predictions():
        assert not values.requires_grad and values.dtype == torch.promote_types(dtype, torch.float32)
    assert batch.cls_scores.flatten().requires_grad and batch.bbox_preds.flatten().requires_grad


@pytest.mark.parametrize('kept', ['neither', 'cls_scores', 'bbox_preds'])
def test_a_batch_without_predictions_raises_when_asked_for_them(kept):
    full = batch_with_predictions()
    kinds = {name: getattr(full, name) if name == kept else None for name in ('cls_scores', 'bbox_preds')}
    batch = AssignmentBatch(full.index, full.batch_gt_instances, full.batch_img_metas, **kinds)
    with pytest.raises(ValueError, match='depends on predictions, and the batch has none.*assignment_batch'):
        batch.predictions()


def test_a_batch_names_its_sizes_device_and_boxes():
    index = LocationIndex([(1, 2)], 2, [1])
    boxes = torch.tensor([[0.0, 0, 8, 8], [1, 1, 4, 4]])
    gts = [
        InstanceData(bboxes=HorizontalBoxes(boxes), labels=torch.tensor([0, 1])),
        InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long)),
    ]
    batch = AssignmentBatch(index, gts, [{}, {}])
    assert batch.featmap_sizes == [(1, 2)] and batch.device == torch.device('cpu')
    assert [type(of_image) for of_image in batch.gt_bboxes] == [torch.Tensor] * 2
    assert torch.equal(batch.gt_bboxes[0], boxes) and batch.gt_bboxes[1].shape == (0, 4)


# Locations ----------------------------------------------------------------------------------------------------------


def test_locations_of_anchors_and_of_points():
    anchors = torch.tensor([[0.0, 10, 20, 50]])
    assert Locations.of_priors(anchors, torch.ones(1)).centers.tolist() == [[10.0, 30.0]]
    assert Locations.of_priors(torch.tensor([[3.0, 4.0]]), torch.ones(1)).centers.tolist() == [[3.0, 4.0]]


def test_distances_by_hand():
    locations = Locations.of_priors(torch.tensor([[100.0, 50.0]]), torch.tensor([8.0]))
    box = torch.tensor([[92.0, 34.0, 124.0, 42.0]])
    assert locations.distances(box).tolist() == [[1, 2, 3, -1]]
    assert locations.boxes(torch.tensor([[1.0, 2, 3, -1]])).tolist() == box.tolist()


# Targets ------------------------------------------------------------------------------------------------------------


def two_levels():
    """Index of two images with 2 x 2 and 1 x 1 cells, 10 locations, and two objects in the first and one beside it."""
    index = LocationIndex([(2, 2), (1, 1)], 2, [1, 1])
    boxes = [torch.tensor([[0.0, 0, 8, 8], [8, 8, 16, 16]]), torch.tensor([[0.0, 0, 16, 16]])]
    return index, boxes, grid_batch(index, boxes).batch_gt_instances


def test_build_targets_by_hand():
    # Matched: cell 3 of image 0 to object 1, cell 0 of image 1 and the only cell of its level 1 to object 2.
    index, boxes, gts = two_levels()
    matched = torch.full((10,), 3)
    matched[3], matched[4], matched[9] = 1, 2, 2

    def priors_at(coords):
        return torch.stack((coords.x, coords.y), dim=1) * coords.of_levels([8.0, 16.0], torch.float32)[:, None]

    targets = build_targets(index, matched, gts, priors_at, [8, 16])
    assert targets.pos.flat_inds.tolist() == [3, 4, 9]
    assert targets.labels.tolist() == [1, 0, 0] and targets.labels.dtype == torch.int64
    assert torch.equal(targets.gt_bboxes, torch.cat(boxes)[[1, 2, 2]])
    assert targets.locations.centers.tolist() == [[8, 8], [0, 0], [0, 0]]
    assert targets.locations.strides.tolist() == [8, 8, 16] and targets.locations.strides.dtype == torch.float32
    assert targets.label_weights is None and targets.quality is None
    assert targets.avg_factor == 3.0 and targets.num_images == 2
    assert targets.dense_labels(5).tolist() == [5, 5, 5, 1, 0, 5, 5, 5, 5, 0]
    assert targets.pos.per_image == [1, 2] and targets.pos.per_level == [2, 1]


def test_targets_without_positives():
    index, _, gts = two_levels()
    targets = build_targets(index, torch.full((10,), 3), gts, lambda coords: torch.zeros(len(coords), 2), [8, 16])
    assert len(targets.pos) == 0 and targets.gt_bboxes.shape == (0, 4) and targets.avg_factor == 0.0
    assert targets.dense_labels(7).tolist() == [7] * 10
    assert targets.pos.per_image == [0, 0]


# Positives ----------------------------------------------------------------------------------------------------------


def positives(centers, gt_bboxes, boxes=None, logits=None, **changes) -> Positives:
    locations = Locations.of_priors(torch.tensor(centers), torch.full((len(centers),), 8.0))
    targets = row_targets(locations, torch.tensor(gt_bboxes), **changes)
    boxes = torch.tensor(gt_bboxes if boxes is None else boxes)
    return Positives(torch.zeros(len(centers), 2) if logits is None else logits, boxes, targets)


def test_centerness_by_hand():
    # In a box of 100 x 40 px: the middle, a quarter in from the left, outside on the left, on the edge.
    box = [0.0, 0.0, 100.0, 40.0]
    centers = [[50.0, 20.0], [25.0, 20.0], [-10.0, 20.0], [0.0, 20.0]]
    expected = torch.tensor([1.0, (25 / 75) ** 0.5, 0.0, 0.0])
    torch.testing.assert_close(positives(centers, [box] * 4).centerness, expected)


def test_centerness_is_defined_in_a_box_without_area():
    assert positives([[5.0, 5.0]], [[5.0, 5.0, 5.0, 5.0]]).centerness.tolist() == [0.0]


def test_iou_by_hand():
    # Half covered, disjoint, the same.
    found = positives([[0.0, 0.0]] * 3, [[0.0, 0, 10, 10]] * 3, [[0.0, 0, 5, 10], [20.0, 20, 30, 30], [0.0, 0, 10, 10]])
    torch.testing.assert_close(found.iou, torch.tensor([0.5, 0.0, 1.0]))


def test_score_is_the_largest_of_the_location():
    found = positives([[0.0, 0.0]], [[0.0, 0, 1, 1]], logits=torch.tensor([[-1.0, 2.0]]))
    torch.testing.assert_close(found.score, torch.tensor([2.0]).sigmoid())


def test_assigned_quality_is_that_of_the_targets():
    quality = torch.tensor([0.25])
    assert positives([[0.0, 0.0]], [[0.0, 0, 1, 1]], quality=quality).assigned_quality is quality
    assert positives([[0.0, 0.0]], [[0.0, 0, 1, 1]]).assigned_quality is None


def test_measures_have_no_gradient():
    logits, boxes = torch.randn(1, 2, requires_grad=True), torch.rand(1, 4, requires_grad=True)
    locations = Locations.of_priors(torch.zeros(1, 2), torch.ones(1))
    found = Positives(logits, boxes, row_targets(locations, torch.tensor([[0.0, 0, 1, 1]])))
    for values in (found.logits, found.boxes, found.iou, found.score, found.centerness):
        assert not values.requires_grad
