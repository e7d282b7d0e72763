"""Pictures of detections, artist by artist."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from mmengine.structures import InstanceData

from mmdet_gfl.visualization import draw
from mmdet_gfl.visualization.distributions import BAND_ALPHA, COLORS, bands, distinct, nearest_box
from mmdet_gfl.visualization.sides import SIDES, Side

GRAY = 128
BOX = [20.0, 10, 60, 50]


def results(full=True, boxes=(BOX,), scores=(0.8,)):
    """Detections 40 px wide and high, predicted from their centres; standard deviations 2, 3, 4, 5 px."""
    count = len(boxes)
    found = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.arange(count),
        bbox_location=torch.tensor(boxes).reshape(-1, 4)[:, :2] + 20,
        bbox_mean=torch.full((count, 4), 20.0),
        bbox_std=torch.tensor([[2.0, 3, 4, 5]]).expand(count, 4),
    )
    if full:
        spread = torch.tensor([[0, 0, 1, 0], [0, 0.1, 0.8, 0.1], [0.1, 0.2, 0.4, 0.3], [0.25] * 4])
        found.bbox_distribution = spread.expand(count, 4, 4)
        found.bbox_step = torch.full((count, 4), 10.0)
    return found


def image(height=80, width=100):
    return np.full((height, width, 3), GRAY, np.uint8)


def picture_of(figure):
    """The axes of the image: the widest."""
    return max(figure.axes, key=lambda axes: axes.get_position().width)


def panels_of(figure):
    """The other axes, by rows."""
    return [axes for axes in figure.axes if axes is not picture_of(figure)]


def patches_of(figure):
    """Corner, width and height of each rectangle on the image, by its name; ``'box'`` are those without one."""
    found = {}
    for patch in picture_of(figure).patches:
        found.setdefault(patch.get_gid() or 'box', []).append((*patch.get_xy(), patch.get_width(), patch.get_height()))
    return found


def test_the_image_fills_its_axes_and_the_corner_of_its_first_pixel_is_the_origin():
    axes = picture_of(draw(image(), results()))
    (shown,) = axes.images
    assert shown.get_extent() == [0, 100, 80, 0] and (shown.get_array() == GRAY).all()
    assert axes.get_xlim() == (0, 100) and axes.get_ylim() == (80, 0)


def test_the_band_is_one_standard_deviation_wide():
    figure = draw(image(), results())
    assert patches_of(figure) == {
        '1 class 0 0.80 left': [(18, 10, 4, 40)],
        '1 class 0 0.80 top': [(20, 7, 40, 6)],
        '1 class 0 0.80 right': [(56, 10, 8, 40)],
        '1 class 0 0.80 bottom': [(20, 45, 40, 10)],
        'box': [(20, 10, 40, 40)],
    }
    *filled, outline = picture_of(figure).patches
    assert {patch.get_facecolor() for patch in filled} == {to_rgba(COLORS[0], BAND_ALPHA)} and not outline.get_fill()
    assert outline.get_edgecolor() == to_rgba(COLORS[0])
    FigureCanvasAgg(figure).draw()


def test_bands_reach_along_the_whole_side():
    sides = [Side(20, 2), Side(10, 3), Side(60, 4), Side(50, 5)]
    assert bands(sides) == [(18, 10, 4, 40), (20, 7, 40, 6), (56, 10, 8, 40), (20, 45, 40, 10)]


def test_ground_truth_is_dashed():
    truth = torch.tensor([[70.0, 5, 95, 75], [1, 2, 3, 4]])
    plain, dashed = (patches_of(draw(image(), results(), ground_truth=boxes))['box'] for boxes in (None, truth))
    assert plain == [(20, 10, 40, 40)] and sorted(dashed) == [(1, 2, 2, 2), (20, 10, 40, 40), (70, 5, 25, 70)]
    patches = picture_of(draw(image(), results(), ground_truth=truth)).patches
    styles = {patch.get_x(): patch.get_linestyle() for patch in patches if patch.get_x() in (1, 70)}
    assert styles == {1: (0, (4, 3)), 70: (0, (4, 3))}
    white = {patch.get_x() for patch in patches if patch.get_edgecolor()[:3] == (1, 1, 1)}
    assert white == {1, 70}


def test_the_panels_show_the_probabilities_where_the_sides_are():
    figure = draw(image(), results(), classes=['cat'], ground_truth=np.array([[22.0, 10, 60, 50], [0, 0, 9, 9]]))
    panels = panels_of(figure)
    titles = [axes.get_title() for axes in panels]
    assert titles == ['left 20.0 ± 2.0', 'top 10.0 ± 3.0', 'right 60.0 ± 4.0', 'bottom 50.0 ± 5.0']
    assert panels[0].get_ylabel() == '1 cat 0.80'
    assert [axes.get_xlabel() for axes in panels] == ['x, px', 'y, px'] * 2
    centres = [[bar.get_x() + bar.get_width() / 2 for bar in axes.patches] for axes in panels]
    np.testing.assert_allclose(centres, [[40, 30, 20, 10], [30, 20, 10, 0], [40, 50, 60, 70], [30, 40, 50, 60]])
    heights = [[bar.get_height() for bar in axes.patches] for axes in panels]
    np.testing.assert_allclose(heights, results().bbox_distribution[0], atol=1e-6)
    # The farthest entry of 2% and more is 20 px from its mean, at the right; 10 px more for its bar, and a tenth.
    for axes, mean in zip(panels, (20, 10, 60, 50)):
        assert axes.get_xlim() == pytest.approx((mean - 33, mean + 33)) and axes.get_ylim() == (0, 1)
        assert {bar.get_width() for bar in axes.patches} == {9.0}
    # The mean, and the object's side.
    assert [[line.get_xdata()[0] for line in axes.lines] for axes in panels] == [[20, 22], [10, 10], [60, 60], [50, 50]]


def test_a_gaussian_is_drawn_as_its_density():
    figure = draw(image(), results(full=False))
    (limits,) = {axes.get_ylim() for axes in panels_of(figure)}  # the same in all, so that a sharp side is a tall one
    assert limits == pytest.approx((0, 1.1 / (2 * np.sqrt(2 * np.pi))))
    for axes, mean, std in zip(panels_of(figure), (20, 10, 60, 50), (2, 3, 4, 5)):
        (area,) = axes.collections
        outline = area.get_paths()[0].vertices
        top = outline[outline[:, 1].argmax()]
        np.testing.assert_allclose(top, [mean, 1 / (std * np.sqrt(2 * np.pi))], rtol=0.02)
        # Three deviations of the widest, and a tenth.
        assert axes.get_xlim() == pytest.approx((mean - 16.5, mean + 16.5))
        assert axes.get_title() == f'{SIDES[(20, 10, 60, 50).index(mean)]} {mean}.0 ± {std}.0'


def test_one_of_coinciding_detections_is_drawn():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 6], [0, 0, 10, 5]], float)
    # 0.9 of the best, 6 of 9 but not of a kept one; 0.6 of the best stays, and 5 of 6 lies on that.
    assert distinct(boxes, np.array([0.5, 0.4, 0.3, 0.2])).tolist() == [0, 2]
    assert distinct(boxes, np.array([0.2, 0.3, 0.4, 0.9])).tolist() == [3, 1]
    assert distinct(boxes[:0], np.zeros(0)).tolist() == []
    assert nearest_box(boxes[0], boxes[2:]).tolist() == [0, 0, 10, 6] and nearest_box(boxes[0], boxes[:0]) is None


def test_the_number_that_is_drawn():
    boxes = [[float(x), y, x + 40, y + 40] for x in (0, 50) for y in (0, 40)]
    figure = draw(image(), results(boxes=boxes, scores=[0.3, 0.9, 0.5, 0.7]), max_boxes=3, max_rows=2)
    assert len(panels_of(figure)) == 8
    assert [axes.get_ylabel() for axes in panels_of(figure)[::4]] == ['1 class 1 0.90', '2 class 3 0.70']
    bars = [{bar.get_facecolor() for bar in axes.patches} for axes in panels_of(figure)]
    assert bars == [{to_rgba(COLORS[0])}] * 4 + [{to_rgba(COLORS[1])}] * 4
    assert sorted(text.get_text() for text in picture_of(figure).texts) == [
        '1 class 1 0.90',
        '2 class 3 0.70',
        '3 class 2 0.50',
    ]


def test_the_panels_of_one_detection_are_two_by_two_and_as_tall_as_the_image_together():
    figure = draw(image(), results())
    FigureCanvasAgg(figure).draw()
    left, top, right, bottom = (axes.get_position() for axes in panels_of(figure))
    assert left.x0 == pytest.approx(right.x0) and left.y0 == pytest.approx(top.y0)
    assert left.x1 < top.x0 and right.y1 < left.y0 and bottom.y0 == pytest.approx(right.y0)
    assert bottom.x0 == pytest.approx(top.x0)
    assert 0.8 < (top.y1 - bottom.y0) / picture_of(figure).get_position().height < 1.2


def test_an_image_without_detections():
    figure = draw(image(), results()[:0], ground_truth=np.array([BOX]))
    assert len(figure.axes) == 1 and figure.axes[0].get_title() == 'no detections' and len(figure.axes[0].patches) == 1
    FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize('name', ['bbox_location', 'bbox_mean', 'bbox_std'])
def test_results_without_statistics_are_refused(name):
    found = results()
    found.pop(name)
    with pytest.raises(ValueError, match=f"no {name}; set model.test_cfg.with_distribution='full'"):
        draw(image(), found)


def test_sides_of_a_clipped_box_are_where_they_were_predicted():
    found = results(boxes=[[0.0, 10, 30, 50]])
    found.bbox_location = torch.tensor([[10.0, 30]])  # the left side, at -10, is clipped to the image
    figure = draw(image(), found)
    assert [axes.get_title() for axes in panels_of(figure)][:3] == [
        'left -10.0 ± 2.0',
        'top 10.0 ± 3.0',
        'right 30.0 ± 4.0',
    ]


@pytest.mark.parametrize('box', [[2.0, 30, 12, 50], [60.0, 30, 80, 50], [85.0, 30, 99, 50]], ids=str)
def test_a_label_stays_on_the_image(box):
    """Beside it stand the distributions, whose names it would hide."""
    figure = draw(image(), results(boxes=[box]), classes=['rectangle'])
    FigureCanvasAgg(figure).draw()
    (label,) = picture_of(figure).texts
    left, right = label.get_window_extent().transformed(picture_of(figure).transData.inverted()).intervalx
    assert left >= 0 and right <= 100
    assert box[2] == pytest.approx(right) if box[0] > 70 else box[0] == pytest.approx(left)
