"""What the pictures of detections show, pixel by pixel and panel by panel."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
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


def pixels(figure, places):
    """The colours (K, 3), 0 to 1, of places in the image, xy in its pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    x, y = picture_of(figure).transData.transform(np.array(places, float)).T
    return drawn[(drawn.shape[0] - 1 - y).round().astype(int), x.round().astype(int)]


def test_the_band_is_one_standard_deviation_wide():
    figure = draw(image(), results())
    gray, tinted = np.full(3, GRAY / 255), np.array(to_rgb(COLORS[0])) * BAND_ALPHA + GRAY / 255 * (1 - BAND_ALPHA)
    inside = [(18.7, 30), (21.3, 30), (40, 7.7), (40, 12.3), (56.7, 30), (63.3, 30), (40, 45.7), (40, 54.3)]
    outside = [(17.3, 30), (22.7, 30), (40, 6.3), (40, 13.7), (55.3, 30), (64.7, 30), (40, 44.3), (40, 55.7), (40, 30)]
    np.testing.assert_allclose(pixels(figure, inside), np.tile(tinted, (8, 1)), atol=0.02)
    np.testing.assert_allclose(pixels(figure, outside), np.tile(gray, (9, 1)), atol=0.01)
    assert abs(pixels(figure, [(20, 30), (40, 50)]) - to_rgb(COLORS[0])).max() < 0.1  # the box itself


def test_bands_reach_along_the_whole_side():
    sides = [Side(20, 2), Side(10, 3), Side(60, 4), Side(50, 5)]
    assert bands(sides) == [(18, 10, 4, 40), (20, 7, 40, 6), (56, 10, 8, 40), (20, 45, 40, 10)]


def test_ground_truth_is_dashed():
    truth = np.array([[70.0, 5, 95, 75]])
    plain = pixels(draw(image(), results()), [(70, y) for y in np.arange(6, 74, 0.25)])
    dashed = pixels(
        draw(image(), results(), ground_truth=torch.from_numpy(truth)), [(70, y) for y in np.arange(6, 74, 0.25)]
    )
    assert abs(plain - GRAY / 255).max() < 0.01
    white, dark = (dashed.min(axis=1) > 0.9), (abs(dashed - GRAY / 255).max(axis=1) < 0.05)
    assert 0.3 < white.mean() < 0.8 and dark.mean() > 0.05


def test_the_panels_show_the_probabilities_where_the_sides_are():
    figure = draw(image(), results(), classes=['cat'], ground_truth=np.array([[22.0, 10, 60, 50], [0, 0, 9, 9]]))
    panels = panels_of(figure)
    titles = [axes.get_title() for axes in panels]
    assert titles == ['left 20.0 ± 2.0', 'top 10.0 ± 3.0', 'right 60.0 ± 4.0', 'bottom 50.0 ± 5.0']
    assert panels[0].get_ylabel() == '1 cat 0.80'
    centres = [[bar.get_x() + bar.get_width() / 2 for bar in axes.patches] for axes in panels]
    np.testing.assert_allclose(centres, [[40, 30, 20, 10], [30, 20, 10, 0], [40, 50, 60, 70], [30, 40, 50, 60]])
    heights = [[bar.get_height() for bar in axes.patches] for axes in panels]
    np.testing.assert_allclose(heights, results().bbox_distribution[0], atol=1e-6)
    limits = np.array([axes.get_xlim() for axes in panels])
    assert np.ptp(limits[:, 1] - limits[:, 0]) < 1e-9 and np.ptp(limits[0]) < 100
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
        assert axes.get_title() == f'{SIDES[(20, 10, 60, 50).index(mean)]} {mean}.0 ± {std}.0'


def test_one_of_coinciding_detections_is_drawn():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 6], [0, 0, 10, 5]], float)
    # 0.9 of the best, 6 of 9 but not of a kept one; 0.6 of the best stays, and 5 of 6 lies on that.
    assert distinct(boxes, np.array([0.5, 0.4, 0.3, 0.2])).tolist() == [0, 2]
    assert distinct(boxes, np.array([0.2, 0.3, 0.4, 0.9])).tolist() == [3, 1]
    assert distinct(boxes[:0], np.zeros(0)).tolist() == []
    assert nearest_box(boxes[0], boxes[2:]).tolist() == [0, 0, 10, 6] and nearest_box(boxes[0], boxes[:0]) is None


def test_how_many_are_drawn():
    boxes = [[float(x), y, x + 40, y + 40] for x in (0, 50) for y in (0, 40)]
    figure = draw(image(), results(boxes=boxes, scores=[0.3, 0.9, 0.5, 0.7]), max_boxes=3, max_rows=2)
    assert len(panels_of(figure)) == 8
    assert [axes.get_ylabel() for axes in panels_of(figure)[::4]] == ['1 class 1 0.90', '2 class 3 0.70']
    assert sorted(text.get_text() for text in picture_of(figure).texts) == [
        '1 class 1 0.90',
        '2 class 3 0.70',
        '3 class 2 0.50',
    ]


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
