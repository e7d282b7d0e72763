"""MMDetection's tools and APIs on a shipped config of each host: what they take of a stock config they take of ours."""

import copy
import json
import pickle
import re
import runpy
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmdet
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData

from mmdet_gfl.__main__ import main as convert_main
from mmdet_gfl.benchmark.mini import Mini, shrink

pytestmark = pytest.mark.agreement

TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
CONFIGS = dict(
    GFL='gfl/gfl_r50_fpn_1x_coco',
    GFLv2='gflv2/gflv2_r50_fpn_1x_coco',
    ATSS='atss/atss_r50_fpn_general-dfl_1x_coco',
    FCOS='fcos/fcos_r50-caffe_fpn_gfl_1x_coco',
    Retina='retinanet/retinanet_r50_fpn_gfl_1x_coco',
    Fovea='foveabox/fovea_r50_fpn_gfl_4xb4-1x_coco',
    SSD='ssd/ssd300_gfl_coco',
    RTMDet='rtmdet/rtmdet_tiny_general-dfl_8xb32-300e_coco',
)
#: Hosts whose box outputs MMDetection's LDHead can take from a teacher: one General box per location, five levels.
TEACHERS = ('GFL', 'GFLv2', 'ATSS', 'FCOS', 'Fovea')
SIZE = 96
CLASSES = ('person', 'bicycle', 'car')  # a confusion matrix of 80 classes takes minutes to draw
SCALES = ('scale', 'img_scale', 'size', 'crop_size')


class Project(NamedTuple):
    """A shipped config with a small model and four small images, as files."""

    folder: Path
    config: Path
    checkpoint: Path

    @property
    def images(self) -> list[str]:
        return sorted(str(path) for path in (self.folder / 'images').iterdir())


def write_data(folder: Path) -> None:
    """Four images with a bright rectangle each, in COCO's format and classes."""
    (folder / 'images').mkdir(parents=True)
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 5):
        image = generator.integers(0, 80, (80, 96, 3), dtype=np.uint8)
        x, y, w, h = 10 * number, 5 * number, 30, 40
        image[y : y + h, x : x + w] = 220
        cv2.imwrite(str(folder / 'images' / f'{number}.png'), image)
        images.append(dict(id=number, file_name=f'{number}.png', height=80, width=96))
        box = dict(id=number, image_id=number, category_id=1, bbox=[x, y, w, h], area=w * h, iscrowd=0)
        annotations.append(box)
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations.json').write_text(json.dumps(content))


def set_scales(steps: Any) -> None:
    """Set the size of images in all steps of a pipeline, nested ones included."""
    for step in steps:
        if isinstance(step, list):
            set_scales(step)
            continue
        set_scales(step.get('transforms', []))
        for key in SCALES:
            if key in step:
                step[key] = (SIZE, SIZE)


def small_config(path: Path, data: Path) -> Config:
    """The shipped config with a small model; the pipelines are its own, with smaller images."""
    cfg = Config.fromfile(path)
    model = shrink(cfg, Mini(size=SIZE, channels=64, stacked_convs=1)).model
    model.bbox_head.num_classes = len(CLASSES)
    model.test_cfg.score_thr = 0.0
    model.test_cfg.max_per_img = 20
    cfg.model = model
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        if loader.dataset.type == 'RepeatDataset':  # it has no end: browse_dataset.py iterates over it for ever
            loader.dataset = loader.dataset.dataset
        dataset = loader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        dataset.update(
            metainfo=dict(classes=CLASSES),
            data_root='',
            ann_file=str(data / 'annotations.json'),
            data_prefix=dict(img=str(data / 'images')),
        )
        set_scales(dataset.pipeline)
    for name in ('val', 'test'):
        cfg[f'{name}_evaluator'].ann_file = str(data / 'annotations.json')
    set_scales(cfg.get('tta_pipeline', []))
    cfg.work_dir = str(data / 'work')
    return cfg


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_data(folder)
    return folder


@pytest.fixture(scope='module', params=CONFIGS)
def project(request, root, data, tmp_path_factory) -> Project:
    register_all_modules(init_default_scope=True)  # a fixture of a module comes before that of each test
    cfg = small_config(root / 'configs' / f'{CONFIGS[request.param]}.py', data)
    folder = tmp_path_factory.mktemp(request.param)
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for parameter in model.bbox_head.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)  # no two scores are equal, whose order would be open
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'model.pth')
    return Project(data, folder / 'config.py', folder / 'model.pth')


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a tool of MMDetection in this process, in an empty folder."""

    def call(tool: str, *arguments: Any) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        runpy.run_path(str(TOOLS / tool), run_name='__main__')

    return call


@pytest.fixture
def predictions(project, run, tmp_path) -> Path:
    """Predictions that ``test.py --out`` writes."""
    out = tmp_path / 'predictions.pkl'
    run('test.py', project.config, project.checkpoint, '--work-dir', tmp_path / 'work', '--out', out)
    return out


def same_boxes(found: dict[str, Any], expected: InstanceData) -> None:
    np.testing.assert_allclose(found['bboxes'], expected.bboxes.numpy(), atol=1e-3)
    np.testing.assert_allclose(found['scores'], expected.scores.numpy(), atol=1e-5)


def test_inferencer_and_inference_detector_agree_on_paths_arrays_batches_and_folders(project, tmp_path):
    inferencer = DetInferencer(str(project.config), str(project.checkpoint), device='cpu', show_progress=False)
    paths = project.images
    arrays = [cv2.imread(path) for path in paths]
    model = init_detector(str(project.config), str(project.checkpoint), device='cpu')
    expected = [result.pred_instances for result in inference_detector(model, paths)]
    assert all(len(instances) > 0 for instances in expected)
    for path, array, instances in zip(paths, arrays, expected):
        for image in (path, array):
            (found,) = inferencer(image, no_save_vis=True)['predictions']
            same_boxes(found, instances)
    # Last, since MMDetection's function leaves the loader of arrays in the model's config.
    for found, instances in zip(inference_detector(model, arrays), expected):
        assert torch.equal(found.pred_instances.bboxes, instances.bboxes)
    # MMDetection's inferencer cannot save the predictions of arrays: they have no name.
    for inputs, batch_size in ((paths, 2), (arrays, 4), (str(project.folder / 'images'), 3)):
        saved = dict(out_dir=str(tmp_path / 'out'), no_save_pred=inputs is arrays, no_save_vis=isinstance(inputs, list))
        results = inferencer(inputs, batch_size=batch_size, **saved)
        assert len(results['predictions']) == 4
        if isinstance(inputs, list):
            for found, instances in zip(results['predictions'], expected):
                same_boxes(found, instances)
    assert len(list((tmp_path / 'out' / 'vis').iterdir())) >= 4


@pytest.mark.parametrize('from_weights', [False, True])
def test_the_calls_of_image_demo(project, tmp_path, from_weights):
    """MMDetection's wheel has no ``demo/image_demo.py``: its calls, with a config or with the weights alone."""
    config, weights = str(project.config), str(project.checkpoint)
    if from_weights:  # those of a training hold its config
        info = dict(cfg=Config.fromfile(config).pretty_text)
        trained = torch.load(weights, weights_only=False) | dict(message_hub=dict(runtime_info=info))
        config, weights = None, str(tmp_path / 'trained.pth')
        torch.save(trained, weights)
    inferencer = DetInferencer(config, weights, device='cpu', palette='random')
    shared = dict(batch_size=1, show=False, no_save_vis=False, print_result=False, out_dir=str(tmp_path))
    found = inferencer(inputs=project.images[0], pred_score_thr=0.0, no_save_pred=False, texts=None, **shared)
    name = Path(project.images[0]).stem
    kept = json.loads((tmp_path / 'preds' / f'{name}.json').read_text())
    np.testing.assert_allclose(kept['scores'], found['predictions'][0]['scores'])
    picture, blank = (cv2.imread(str(file)) for file in (next((tmp_path / 'vis').iterdir()), project.images[0]))
    assert picture.shape == blank.shape and (picture != blank).any()


def test_test_time_augmentation(project, run, tmp_path):
    out = tmp_path / 'augmented.pkl'
    run('test.py', project.config, project.checkpoint, '--work-dir', tmp_path / 'work', '--tta', '--out', out)
    results = pickle.loads(out.read_bytes())
    assert len(results) == 4 and all(len(result['pred_instances']['scores']) > 0 for result in results)


def test_tools_that_read_predictions(predictions, project, run, tmp_path, capsys):
    run('analysis_tools/eval_metric.py', project.config, predictions)
    assert 'coco/bbox_mAP' in capsys.readouterr().out
    run('analysis_tools/analyze_results.py', project.config, predictions, tmp_path / 'shown', '--topk', 2)
    assert len(list((tmp_path / 'shown' / 'good').iterdir())) == 2


def test_number_of_operations(project, run, capsys):
    run('analysis_tools/get_flops.py', project.config, '--num-images', 1)
    assert 'Flops: ' in capsys.readouterr().out


def test_tools_that_see_no_head(predictions, project, run, tmp_path, capsys):
    run('misc/print_config.py', project.config)
    assert str(project.folder / 'annotations.json') in capsys.readouterr().out
    run('analysis_tools/browse_dataset.py', project.config, '--output-dir', tmp_path / 'browsed', '--not-show')
    assert len(list((tmp_path / 'browsed').iterdir())) >= 4
    run('analysis_tools/confusion_matrix.py', project.config, predictions, tmp_path / 'matrix')
    assert (tmp_path / 'matrix' / 'confusion_matrix.png').stat().st_size > 1000


STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'
#: MMDetection's configs, arguments of ``convert``, and outputs of the box layer after it.
CONVERTED = [
    ('retinanet/retinanet_r50_fpn_1x_coco', (), 9 * 4 * 17),
    ('gfl/gfl_r50_fpn_1x_coco', ('--gflv2',), 4 * 17),
    ('atss/atss_r50_fpn_1x_coco', ('--quality', 'IoUBranch', '--box', 'DiracBox'), 4),
    ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', ('--quality', 'NoQuality'), 4 * 17),
]


@pytest.mark.parametrize('stock, arguments, outputs', CONVERTED)
def test_a_converted_config_trains_and_is_tested(data, run, tmp_path, stock, arguments, outputs):
    cfg = small_config(STOCK / f'{stock}.py', data)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    cfg.dump(tmp_path / 'stock.py')
    assert convert_main(['convert', str(tmp_path / 'stock.py'), '-o', str(tmp_path / 'gfl.py'), *arguments]) == 0
    run('train.py', tmp_path / 'gfl.py', '--work-dir', tmp_path / 'work')
    weights = torch.load(tmp_path / 'work' / 'epoch_1.pth', map_location='cpu', weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in weights.values())
    boxes = [value for name, value in weights.items() if re.search(r'_reg\.(0\.)?weight$', name)]
    assert [len(value) for value in boxes] == [outputs]
    run('test.py', tmp_path / 'gfl.py', tmp_path / 'work' / 'epoch_1.pth', '--work-dir', tmp_path / 'tested')
    (scores,) = (tmp_path / 'tested').glob('*/*.json')
    assert 0 <= json.loads(scores.read_text())['coco/bbox_mAP'] <= 1


# Detectors that hold another -----------------------------------------------------------------------------------------


def samples(count: int) -> list[DetDataSample]:
    """Samples with one object each."""
    results = []
    for _ in range(count):
        meta = dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=dict(meta, homography_matrix=np.eye(3, dtype=np.float32), img_path='a.jpg'))
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[10.0, 20.0, 60.0, 80.0]]), labels=torch.tensor([0]))
        results.append(sample)
    return results


def assert_trains(model: torch.nn.Module, inputs: Any, data_samples: Any) -> None:
    """Assert that a step gives finite losses and gradients."""
    losses = model.loss(inputs, data_samples)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total > 0 and any('loss_bbox' in key for key in losses)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE)


def test_semi_supervised_training(project):
    cfg = Config.fromfile(project.config).model
    preprocessor = dict(type='MultiBranchDataPreprocessor', data_preprocessor=cfg.data_preprocessor)
    semi = ConfigDict(
        freeze_teacher=True, sup_weight=1.0, unsup_weight=1.0, cls_pseudo_thr=0.0, min_pseudo_bbox_wh=(1, 1)
    )
    model = MODELS.build(
        dict(
            type='SemiBaseDetector',
            detector=cfg,
            data_preprocessor=preprocessor,
            semi_train_cfg=semi,
            semi_test_cfg=dict(predict_on='teacher'),
        )
    )
    branches = ('sup', 'unsup_teacher', 'unsup_student')
    assert_trains(model, {name: images(2) for name in branches}, {name: samples(2) for name in branches})
    assert len(model.eval().predict(images(1), samples(1))) == 1


def test_region_proposals(project):
    cfg = Config.fromfile(project.config).model
    head = dict(cfg.bbox_head, num_classes=1)
    model = MODELS.build(
        dict(
            type='RPN',
            backbone=cfg.backbone,
            neck=cfg.neck,
            rpn_head=head,
            train_cfg=dict(rpn=cfg.get('train_cfg')),
            test_cfg=dict(rpn=cfg.test_cfg),
            data_preprocessor=cfg.data_preprocessor,
        )
    )
    data_samples = samples(2)
    for sample in data_samples:
        sample.gt_instances.labels += 17  # RPN sets them to 0
    assert_trains(model, images(2), data_samples)
    assert model.eval().predict(images(1), samples(1))[0].pred_instances.labels.eq(0).all()


@pytest.mark.parametrize('project', TEACHERS, indirect=True)
def test_a_teacher_of_localization_distillation(project):
    teacher = Config.fromfile(project.config)
    student = copy.deepcopy(Config.fromfile(project.config).model)
    student.bbox_head = dict(
        type='LDHead',
        num_classes=len(CLASSES),
        in_channels=64,
        feat_channels=64,
        stacked_convs=1,
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32, 64, 128]
        ),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
        loss_ld=dict(type='KnowledgeDistillationKLDivLoss', loss_weight=0.25, T=10),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        reg_max=16,
    )
    assigner = dict(type='ATSSAssigner', topk=9)
    model = MODELS.build(
        dict(
            type='KnowledgeDistillationSingleStageDetector',
            backbone=student.backbone,
            neck=student.neck,
            bbox_head=student.bbox_head,
            teacher_config=teacher,
            teacher_ckpt=str(project.checkpoint),
            train_cfg=dict(assigner=assigner, allowed_border=-1, pos_weight=-1),
            test_cfg=student.test_cfg,
            data_preprocessor=student.data_preprocessor,
        )
    )
    losses = model.loss(images(2), samples(2))
    assert float(sum(losses['loss_ld'])) > 0
    assert_trains(model, images(2), samples(2))
