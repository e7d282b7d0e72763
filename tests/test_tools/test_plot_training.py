"""The curves of a training, of one that was resumed too."""

import importlib.util
import json

import cv2
import pytest


@pytest.fixture(scope='module')
def tool(root):
    spec = importlib.util.spec_from_file_location('plot_training', root / 'tools/analysis_tools/plot_training.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, lines):
    (folder / 'vis_data').mkdir(parents=True)
    (folder / 'vis_data' / 'scalars.json').write_text('\n'.join(json.dumps(line) for line in lines))


@pytest.fixture
def resumed(tmp_path):
    write(tmp_path / '20240101_000000', [dict(loss=3.0, loss_cls=1.0, step=1), dict(loss=2.0, loss_cls=0.5, step=2)])
    evaluated = {'coco/bbox_mAP': 0.25, 'loss_cls': 9.0, 'step': 1}  # with a loss on validation images
    write(tmp_path / '20240102_000000', [dict(loss=1.5, loss_cls=0.4, step=2), evaluated])
    return tmp_path


def test_a_repeated_step_counts_once(tool, resumed):
    scalars = tool.read_scalars(resumed)
    assert tool.curve(scalars, 'loss') == ([1, 2], [3.0, 1.5])
    assert tool.curve(scalars, 'coco/bbox_mAP') == ([1], [0.25])
    assert tool.curve(scalars, 'nothing') == ([], [])


def test_the_picture_shows_curves(tool, resumed):
    left, right = tool.draw(tool.read_scalars(resumed)).axes
    found = [(line.get_label(), line.get_xydata().tolist()) for axes in (left, right) for line in axes.lines]
    assert found == [
        ('loss', [[1, 3.0], [2, 1.5]]),
        ('loss_cls', [[1, 1.0], [2, 0.4]]),
        ('mAP', [[1, 0.25]]),
    ]


def test_other_data_sets_have_their_ap(tool):
    lines = [{'pascal_voc/mAP': 0.4, 'pascal_voc/AP50': 0.4, 'coco/bbox_mAP_s': 0.1, 'step': 1}]
    lines += [{'pascal_voc/mAP': 0.5, 'step': 2}]
    _, right = tool.draw(lines).axes
    found = {line.get_label(): line.get_xydata().tolist() for line in right.lines}
    assert found == {'mAP': [[1, 0.4], [2, 0.5]], 'AP50': [[1, 0.4]]}


def test_the_picture_is_written(tool, resumed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['plot_training.py', str(resumed), str(tmp_path / 'new' / 'curve.png')])
    tool.main()
    assert cv2.imread(str(tmp_path / 'new' / 'curve.png')).shape == (400, 1000, 3)


def test_a_line_that_a_kill_has_cut_short_is_left_out(tool, resumed):
    file = resumed / '20240102_000000' / 'vis_data' / 'scalars.json'
    file.write_text(file.read_text() + '\n{"loss": 1.2, "loss_c')
    assert tool.curve(tool.read_scalars(resumed), 'loss') == ([1, 2], [3.0, 1.5])


def test_a_training_that_was_not_evaluated_yet(tool, tmp_path, recwarn):
    write(tmp_path / '20240101_000000', [dict(loss=3.0, step=1), 5])  # 5: what a kill can leave of a line
    left, right = tool.draw(tool.read_scalars(tmp_path)).axes
    assert [line.get_xydata().tolist() for line in left.lines] == [[[1, 3.0]]] and not right.lines
    assert right.get_legend() is None and not recwarn.list


def test_a_folder_without_a_training_is_named(tool, tmp_path):
    with pytest.raises(SystemExit, match='scalars.json; name the --work-dir'):
        tool.read_scalars(tmp_path)
