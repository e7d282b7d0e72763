"""`python -m mmdet_gfl convert`: a stock config becomes one with a GFL head."""

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import mmdet
import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_gfl import conversion
from mmdet_gfl.__main__ import main
from mmdet_gfl.conversion import files as config_files
from mmdet_gfl.conversion.convert import ANCHOR_CODER
from mmdet_gfl.conversion.heads import HEAD_KEYS
from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.registry import hosts_of_stock_heads

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
HEADS = 'ATSSHead|FCOSHead|FoveaHead|GFLHead|RTMDetHead|RTMDetSepBNHead|RetinaHead|SSDHead'
#: A config of each stock head that MMDetection ships.
OF_HEADS = dict(
    GFLHead='gfl_r50_fpn_1x_coco',
    ATSSHead='atss_r50_fpn_1x_coco',
    FCOSHead='fcos_r50-caffe_fpn_gn-head_1x_coco',
    RetinaHead='retinanet_r50_fpn_1x_coco',
    FoveaHead='fovea_r50_fpn_4xb4-1x_coco',
    SSDHead='ssd300_coco',
    RTMDetSepBNHead='rtmdet_tiny_8xb32-300e_coco',
)


@cache
def files(path: Path) -> dict[Path, str]:
    """The text of a config file and of those that it inherits from."""
    found = re.search(r'_base_\s*=\s*(\[[^\]]*\]|[\'"][^\'"]*[\'"])', path.read_text())
    names = re.findall(r'[\'"]([^\'"]+)[\'"]', found[1]) if found else ()
    bases = [(path.parent / name).resolve() for name in names]
    return {path: path.read_text()} | {k: v for base in bases if base.is_file() for k, v in files(base).items()}


def shipped() -> list[str]:
    """MMDetection's configs that have one of the heads, in their text or a base's: one of those with the same head."""
    found: dict[tuple[Path, ...], str] = {}
    paths = (path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
    for path in sorted(paths, key=lambda path: (path.stem not in OF_HEADS.values(), path)):
        texts = {file: text for file, text in files(path.resolve()).items() if 'schedules' not in file.parts}
        if any(re.search(rf"type='({HEADS})'", text) for text in texts.values()):
            heads = tuple(file for file, text in texts.items() if re.search('_head|(train|test)_cfg', text))
            found.setdefault(heads, str(path.relative_to(CONFIGS)))
    return [*found.values()]


def convert(tmp_path: Path, *arguments: str) -> Config:
    """The config that the command writes, read by MMEngine."""
    out = tmp_path / 'converted.py'
    assert main(['convert', *arguments, '-o', str(out)]) == 0
    return Config.fromfile(out)


def without_scopes(value: Any) -> Any:
    """A config without the scopes that MMEngine adds to all that comes from ``mmdet::``."""
    if isinstance(value, dict):
        return {key: without_scopes(child) for key, child in value.items() if key != '_scope_'}
    return [without_scopes(child) for child in value] if isinstance(value, (list, tuple)) else value


def without_heads(cfg: Config) -> dict:
    """A config without what may differ."""
    content = without_scopes(cfg.to_dict())
    content.pop('custom_imports', None)
    for detector in (content['model'], content['model'].get('detector', {})):
        for name in HEAD_KEYS:
            detector.pop(name, None)
    return content


def build(cfg: Config) -> torch.nn.Module:
    """The detector of a config, without memory where that can be."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        try:
            with torch.device('meta'):
                return MODELS.build(cfg.model)
        except RuntimeError as error:  # a backbone that computes with numbers while it is built
            assert 'cannot be called on meta tensors' in str(error) or "'Meta' backend" in str(error)  # torch 2.1
            return MODELS.build(cfg.model)


def build_heads(cfg: Config) -> list[torch.nn.Module]:
    """The heads of a detector that are GFL heads, as the detector builds them."""
    parts = {key: cfg.model[key] for key in HEAD_KEYS if key in cfg.model}
    ours = {key: part for key, part in parts.items() if str(part.type).startswith('mmdet_gfl.')}
    parts = dict(train_cfg=cfg.model.get('train_cfg'), test_cfg=cfg.model.get('test_cfg'))
    for key in ours:
        if key == 'rpn_head':
            ours[key] = dict(ours[key], num_classes=1)
            parts = {name: value and value.get('rpn') for name, value in parts.items()}
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmdet'):
        return [MODELS.build({**part, **parts}) for part in ours.values()]


@pytest.mark.slow
def test_every_config_of_mmdetection_with_such_a_head_is_converted_and_built(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ConvModule, 'init_weights', lambda self: None)  # nothing is computed
    names, seen, whole = shipped(), set(), set()
    assert all(any(name.endswith(f'/{config}.py') for name in names) for config in OF_HEADS.values())
    for name in names:
        stock = Config.fromfile(CONFIGS / name, import_custom_modules=False)
        heads = {key: stock.model[key] for key in HEAD_KEYS if key in stock.model}
        alike = str((stock.model.type, heads, stock.model.get('train_cfg'), stock.model.get('test_cfg')))
        if alike in seen:
            continue
        seen.add(alike)
        folder = tmp_path / str(len(seen))
        folder.mkdir()
        if not {head.type for head in heads.values()} & set(HEADS.split('|')):
            with pytest.raises(UserError, match='has no GFL variant|nothing to convert'):
                convert(folder, name)
            continue
        others = 'mmpretrain' in ''.join(files((CONFIGS / name).resolve()).values())  # a backbone of another package
        cfg = conversion.apply(stock, conversion.convert_config(stock)) if others else convert(folder, name)
        assert without_heads(cfg) == without_heads(stock), name
        capsys.readouterr()
        built = build_heads(cfg)
        assert built and all(isinstance(head, DenseGFLMixin) for head in built), name
        assert 'superseded' not in capsys.readouterr().out, name
        necks = stock.model.neck if isinstance(stock.model.neck, list) else [stock.model.neck]
        parts = (stock.model.type, stock.model.backbone.type, *(neck.type for neck in necks))
        if not others and parts not in whole:
            whole.add(parts)
            assert sum(isinstance(module, DenseGFLMixin) for module in build(cfg).modules()) == len(built), name
    assert len(seen) > 30 and len(whole) > 10


def test_a_config_of_each_head_says_what_differs_and_nothing_else(tmp_path):
    for name in OF_HEADS.values():
        out = tmp_path / f'{name}.py'
        assert main(['convert', name, '-o', str(out)]) == 0
        assert re.findall(r'^(\w+) = ', out.read_text(), re.M) == ['_base_', 'custom_imports', 'model']
        assert build(Config.fromfile(out)).bbox_head.box.max_distance == 16


def test_retinanet_by_hand(tmp_path, capsys):
    converted = convert(tmp_path, 'retinanet_r50_fpn_1x_coco')
    stock = Config.fromfile(CONFIGS / 'retinanet/retinanet_r50_fpn_1x_coco.py')
    assert converted.custom_imports == dict(imports=['mmdet_gfl'], allow_failed_imports=False)
    assert converted.model.bbox_head == dict(
        type='mmdet_gfl.RetinaGFLHead',
        num_classes=80,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        anchor_generator=stock.model.bbox_head.anchor_generator,
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
    )
    said = capsys.readouterr().out
    assert 'RetinaHead becomes mmdet_gfl.RetinaGFLHead: JointQuality and GeneralBox' in said
    assert 'loss_cls=FocalLoss is replaced by QualityFocalLoss, weight 1' in said
    assert 'loss_bbox=L1Loss is replaced by GIoULoss, weight 2' in said
    assert '128 pixels at stride 8, 2048 at stride 128; images have up to 1333 pixels: reach all' in said
    assert 'fills all layers but retina_reg' in said


def test_values_are_written_as_python_reads_them():
    values = dict(a=[1, (2,)], b={'x-y': None, 'class': 'it"s'}, c=dict(long=['word'] * 30, type='X'), d=(), e={1: 2.5})
    text = config_files._code(values)
    assert eval(text) == values
    assert list(eval(text)) == list(values) and max(map(len, text.splitlines())) <= 110


def test_a_loss_that_the_head_uses_stays(tmp_path, capsys):
    name = 'fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco'
    head = convert(tmp_path, name).model.bbox_head
    assert head.loss_bbox == dict(type='GIoULoss', loss_weight=1.0)
    assert 'loss_cls' not in head and 'loss_centerness' not in head and 'bbox_coder' not in head
    said = capsys.readouterr().out
    assert 'loss_centerness=CrossEntropyLoss is gone' in said and 'loss_bbox=' not in said


def test_gfl_differs_by_its_type_alone(tmp_path, capsys):
    out = tmp_path / 'converted.py'
    assert main(['convert', 'gfl_r50_fpn_1x_coco', '-o', str(out)]) == 0
    assert "model = dict(bbox_head=dict(type='mmdet_gfl.GFLHead'))" in out.read_text()
    assert 'fills all layers\n' in capsys.readouterr().out


@pytest.mark.parametrize('name', [name for name in OF_HEADS.values() if name != 'gfl_r50_fpn_1x_coco'])
def test_at_the_baseline_the_layers_are_those_of_the_stock_head(name):
    cfg, _, _ = conversion.read(name)
    (found,) = conversion.convert_config(cfg, 'baseline', 'DiracBox')
    assert 'fills all layers' in found.notes[-1] and ' but ' not in found.notes[-1]
    converted = build(conversion.apply(cfg, [found]))
    shapes = {key: value.shape for key, value in build(cfg).state_dict().items()}
    assert {key: value.shape for key, value in converted.state_dict().items()} == shapes


def test_gflv2_keeps_the_names_of_gfls_layers(tmp_path, capsys):
    head = convert(tmp_path, 'gfl_r50_fpn_1x_coco', '--gflv2').model.bbox_head
    assert head.type == 'mmdet_gfl.GFocalHead'
    assert 'fills all layers but reg_conf.0, reg_conf.2' in capsys.readouterr().out


def test_gfl_with_another_quality_is_an_atss_head_that_loads_gfls_layers(tmp_path, capsys):
    cfg, _, _ = conversion.read('gfl_r50_fpn_1x_coco')
    (found,) = conversion.convert_config(cfg, 'mmdet_gfl.IoUBranch', None)
    assert found.converted['type'] == 'mmdet_gfl.ATSSGFLHead'
    assert found.converted['box'] == dict(
        type='mmdet_gfl.GeneralBox', reg_max=16, loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25)
    )
    assert found.converted['loss_cls']['type'] == 'FocalLoss'
    assert 'fills all layers but atss_centerness' in found.notes[-1]

    node = dict(cfg.model.bbox_head, feat_channels=32, in_channels=8, stacked_convs=1, num_classes=3)
    stock = MODELS.build(node)
    head = MODELS.build(dict(found.converted, feat_channels=32, in_channels=8, stacked_convs=1, num_classes=3))
    missing, unexpected = head.load_state_dict(stock.state_dict(), strict=False)
    assert set(missing) == {'atss_centerness.weight', 'atss_centerness.bias'} and not unexpected
    assert torch.equal(head.atss_cls.weight, stock.gfl_cls.weight)
    assert torch.equal(head.atss_reg.bias, stock.gfl_reg.bias)


def test_box_weights_are_an_argument_of_the_quality(tmp_path, capsys):
    head = convert(tmp_path, 'gfl_r50_fpn_1x_coco', '--box-weight', 'uniform').model.bbox_head
    assert head.type == 'mmdet_gfl.ATSSGFLHead' and head.box.reg_max == 16
    assert head.quality == dict(type='mmdet_gfl.JointQuality', box_weight='uniform')
    said = capsys.readouterr().out
    assert 'JointQuality with uniform box weights and GeneralBox' in said and 'fills all layers\n' in said
    (tmp_path / 'again').mkdir()
    head = convert(tmp_path / 'again', str(tmp_path / 'converted.py'), '--box-weight', 'auto').model.bbox_head
    assert head.quality.box_weight == 'auto' and head.box.reg_max == 16
    with pytest.raises(SystemExit):
        main(['convert', 'atss_r50_fpn_1x_coco', '--box-weight', 'flat'])
    assert "invalid choice: 'flat'" in capsys.readouterr().err


def test_a_gfl_head_may_be_moved_by_a_choice(tmp_path, capsys):
    gfl = Path(__file__).parents[1] / 'configs' / 'gfl' / 'gfl_r50_fpn_1x_coco.py'
    convert(tmp_path, str(gfl.parents[1] / 'atss' / 'atss_r50_fpn_1x_coco.py'), '--quality', 'JointQuality')
    assert 'a score now means class x IoU' in capsys.readouterr().out
    for number, learns_it in enumerate((str(gfl), 'gfl_r50_fpn_1x_coco')):
        (tmp_path / str(number)).mkdir()
        convert(tmp_path / str(number), learns_it, '--gflv2')
        assert 'a score now means' not in capsys.readouterr().out
    (tmp_path / 'uniform').mkdir()
    head = convert(tmp_path / 'uniform', str(gfl), '--box-weight', 'uniform').model.bbox_head
    assert head.type == 'mmdet_gfl.ATSSGFLHead' and head.quality.box_weight == 'uniform'
    assert (
        main(
            [
                'convert',
                str(gfl.parents[1] / 'atss' / 'atss_r50_fpn_joint_1x_coco.py'),
                '--box',
                'GeneralBox',
                '-o',
                str(tmp_path / 'atss.py'),
            ]
        )
        == 0
    )
    assert 'box' not in Config.fromfile(tmp_path / 'atss.py').model.bbox_head


def test_gfl_with_dirac_boxes_gets_the_coder_of_anchors():
    cfg, _, _ = conversion.read('gfl_r50_fpn_1x_coco')
    (found,) = conversion.convert_config(cfg, None, 'DiracBox')
    assert found.converted['bbox_coder'] == ANCHOR_CODER
    assert 'loss_dfl' not in found.converted and 'reg_max' not in found.converted


def test_a_quality_with_hard_labels_gets_a_loss_for_them():
    cfg, _, _ = conversion.read('rtmdet_tiny_8xb32-300e_coco')
    (found,) = conversion.convert_config(cfg, 'NoQuality', None)
    assert found.converted['loss_cls'] == conversion.FOCAL_LOSS
    (found,) = conversion.convert_config(cfg)
    assert found.converted['loss_cls']['type'] == 'QualityFocalLoss'
    assert 'exp_on_reg' not in found.converted and 'bbox_coder' in found.converted
    assert any('reg_max=20' in note for note in found.notes)  # 640 pixels at stride 32


def test_clipping_that_is_off_stays_off(tmp_path):
    (tmp_path / 'own.py').write_text(
        f"_base_ = '{CONFIGS}/retinanet/retinanet_r50_fpn_1x_coco.py'\n"
        'model = dict(bbox_head=dict(bbox_coder=dict(clip_border=False)))\n'
    )
    head = convert(tmp_path, str(tmp_path / 'own.py')).model.bbox_head
    assert head.bbox_coder.clip_border is False


def test_detectors_in_wrappers_and_rpn_heads(tmp_path):
    (tmp_path / 'semi.py').write_text(
        f"_base_ = '{CONFIGS}/fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'\n"
        'detector = {{_base_.model}}\n'
        "model = dict(_delete_=True, type='SemiBaseDetector', detector=detector, semi_train_cfg=dict())\n"
    )
    semi = convert(tmp_path, str(tmp_path / 'semi.py'))
    assert semi.model.detector.bbox_head.type == 'mmdet_gfl.FCOSGFLHead'
    assert 'bbox_head' not in semi.model
    (tmp_path / 'converted.py').unlink()
    two_stage = convert(tmp_path, 'faster-rcnn_r50_fpn_fcos-rpn_1x_coco')
    assert two_stage.model.rpn_head.type == 'mmdet_gfl.FCOSGFLHead'
    assert build(two_stage).rpn_head.num_classes == 1


def test_boxes_that_do_not_fit_are_dirac(tmp_path, capsys):
    head = convert(tmp_path, 'fovea_r50_fpn_gn-head-align_4xb4-2x_coco').model.bbox_head
    assert head.with_deform and head.box.type == 'mmdet_gfl.DiracBox'
    assert 'GeneralBox does not fit here' in capsys.readouterr().out
    with pytest.raises(UserError, match='with_deform=True'):
        main(['convert', 'fovea_r50_fpn_gn-head-align_4xb4-2x_coco', '--box', 'GeneralBox'])


def test_imports_of_the_config_stay(tmp_path):
    (tmp_path / 'own.py').write_text(
        f"_base_ = '{CONFIGS}/atss/atss_r50_fpn_1x_coco.py'\n"
        "custom_imports = dict(imports=['json'], allow_failed_imports=True)\n"
    )
    assert convert(tmp_path, str(tmp_path / 'own.py')).custom_imports.imports == ['json', 'mmdet_gfl']


def test_a_pure_python_config(tmp_path):
    (tmp_path / 'own.py').write_text(
        'from mmdet.models import RetinaHead, FocalLoss, L1Loss\n'
        'from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder\n'
        'model = dict(bbox_head=dict(type=RetinaHead, num_classes=3, in_channels=8,\n'
        '    anchor_generator=dict(type=AnchorGenerator, octave_base_scale=4, scales_per_octave=3,\n'
        '        ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128]),\n'
        '    bbox_coder=dict(type=DeltaXYWHBBoxCoder), loss_cls=dict(type=FocalLoss),\n'
        '    loss_bbox=dict(type=L1Loss)), train_cfg=None, test_cfg=None)\n'
    )
    (tmp_path / 'folder').mkdir()
    out = tmp_path / 'folder' / 'child.py'
    assert main(['convert', str(tmp_path / 'own.py'), '-o', str(out)]) == 0
    head = Config.fromfile(out).model.bbox_head
    assert head.type == 'mmdet_gfl.RetinaGFLHead' and head.loss_bbox.type == 'GIoULoss' and 'loss_cls' not in head
    assert MODELS.build(head).num_base_priors == 9
    (tmp_path / 'own.py').rename(tmp_path / 'not-a-name.py')
    with pytest.raises(UserError, match="Python cannot import 'not-a-name'"):
        main(['convert', str(tmp_path / 'not-a-name.py'), '-o', str(tmp_path / 'other.py')])


def test_a_head_of_the_users_that_derives_from_one_of_these(tmp_path, capsys):
    @MODELS.register_module(name='UsersRetinaHead', force=True)
    class UsersRetinaHead(RetinaHead):
        __module__ = 'users_project'

    (tmp_path / 'own.py').write_text(
        f"_base_ = '{CONFIGS}/retinanet/retinanet_r50_fpn_1x_coco.py'\n"
        "model = dict(bbox_head=dict(type='UsersRetinaHead'))\n"
    )
    assert convert(tmp_path, str(tmp_path / 'own.py')).model.bbox_head.type == 'mmdet_gfl.RetinaGFLHead'
    assert 'warning: UsersRetinaHead derives from RetinaHead' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['retinanet_r50_fpn_1x_cocoo'], 'did you mean retinanet/retinanet_r50_fpn_1x_coco'),
        (
            ['no_such_thing_at_all_zzz'],
            'there is no file no_such_thing_at_all_zzz, and in the installed MMDetection no shipped config',
        ),
        (['tood_r50_fpn_1x_coco'], 'TOODHead has no GFL variant; the nearest that can is ATSSHead'),
        (['yolox_s_8xb8-300e_coco'], 'YOLOXHead has no GFL variant; accepted: ATSSHead'),
        (['faster-rcnn_r50_fpn_1x_coco'], 'model.rpn_head.type=RPNHead of a two-stage detector has no GFL variant'),
        (['sparse-rcnn_r50_fpn_1x_coco'], 'has no GFL variant'),
        (['ld_r18-gflv1-r101_fpn_1x_coco'], 'LDHead has no GFL variant; the nearest that can is GFLHead'),
        (['atss_r50_fpn_1x_coco', '--quality', 'JointQualty'], 'did you mean mmdet_gfl.JointQuality?'),
        (['atss_r50_fpn_1x_coco', '--quality', 'Foo'], 'mmdet_gfl.NoQuality, or baseline'),
        (['atss_r50_fpn_1x_coco', '--box', 'Dirac'], 'did you mean mmdet_gfl.DiracBox?'),
        (['ssd300_coco', '--quality', 'IoUBranch'], 'has no meaning on SSD'),
        (['retinanet_r50_fpn_1x_coco', '--gflv2', '--box', 'DiracBox'], 'needs the distribution of a box side'),
    ],
)
def test_refusals_of_the_conversion_are_sentences(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        main(['convert', *arguments])
    assert '\n' not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_config_that_is_converted_already(tmp_path):
    convert(tmp_path, 'atss_r50_fpn_1x_coco')
    with pytest.raises(UserError, match='is a GFL head already'):
        main(['convert', str(tmp_path / 'converted.py'), '-o', str(tmp_path / 'other.py')])


def test_files_are_not_overwritten_and_named_after_the_choice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['convert', 'atss_r50_fpn_1x_coco', '--quality', 'IoUBranch', '--box', 'DiracBox']) == 0
    assert [path.name for path in tmp_path.iterdir()] == ['atss_r50_fpn_1x_coco_gfl-IoUBranch-DiracBox.py']
    assert main(['convert', 'atss_r50_fpn_1x_coco', '--quality', 'IoUBranch', '--box', 'DiracBox']) == 2
    assert 'exists and is not overwritten' in capsys.readouterr().err
    assert main(['convert', 'atss_r50_fpn_1x_coco', '--box-weight', 'uniform']) == 0
    assert Path('atss_r50_fpn_1x_coco_gfl-uniform.py').is_file()
    assert main(['convert', 'atss_r50_fpn_1x_coco', '-o', 'none/x.py']) == 2
    assert main(['convert', 'atss_r50_fpn_1x_coco', '--gflv2', '--quality', 'IoUBranch']) == 2


def test_without_pkg_resources_the_base_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    monkeypatch.setattr(config_files.importlib.util, 'find_spec', lambda name: None)
    assert convert(tmp_path, 'atss_r50_fpn_1x_coco').model.bbox_head.type == 'mmdet_gfl.ATSSGFLHead'
    assert '::' not in (tmp_path / 'converted.py').read_text()


def test_baseline_is_a_quality_without_a_box():
    cfg, _, _ = conversion.read('atss_r50_fpn_1x_coco')
    with pytest.raises(UserError, match='--box baseline is unknown'):
        conversion.convert_config(cfg, 'baseline', 'baseline')


def test_every_stock_head_is_tried_here():
    assert {stock.__name__ for stock in hosts_of_stock_heads()} == set(HEADS.split('|'))
