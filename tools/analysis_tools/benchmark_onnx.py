"""Compare detectors in torch with their export in onnxruntime, on the test data: AP, size of the file, time per image.

The graph is the default one of tools/export_onnx.py, and runs as tools/deployment/detect_onnx.py runs it. Both sides
see one image at a time: what a batch pads can change scores. The times are from a normalised image to its detections,
in turn on the same images. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

import torch
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from mmdet_gfl.analysis import detector
from mmdet_gfl.analysis.benchmark_report import cpu_model
from mmdet_gfl.analysis.measuring import Spread, ratios, times_in_turn
from mmdet_gfl.engine import launch
from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.export import checking, exporting, writing

AP = 'coco/bbox_mAP'


class Measurements(NamedTuple):
    """A detector's measurements.

    Attributes:
        ap: AP in percent, by torch and by onnxruntime.
        megabytes: Of the file.
        times: Milliseconds per image by the name of the runtime, a sample per turn.
    """

    ap: tuple[float, float]
    megabytes: float
    times: dict[str, list[float]]


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT', help='one or more models')
    parser.add_argument('--names', nargs='+', help='a name for each model; default: its config')
    parser.add_argument('--threads', type=int, help="number of CPU threads of both; default: torch's")
    parser.add_argument('--repeats', type=int, default=10, help='timed repetitions; default: %(default)s')
    parser.add_argument('--timed-images', type=int, default=8, help='images per repetition; default: %(default)s')
    launch.add_config_arguments(parser)
    return parser.parse_args()


def compare(loaded: detector.Detector, repeats: int, timed_images: int) -> Measurements:
    """Export a detector, and run it and the export on the test data of its config.

    Raises:
        UserError: It cannot be exported, or the data set cannot be read or is not judged by COCO's AP.
    """
    import onnx

    model: Any = copy.deepcopy(loaded.model)  # the export puts a head of ours in place of MMDetection's
    dataset = detector.dataset_of(loaded.cfg, 'test')
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'model.onnx'
        exporting.export(loaded, exporting.Settings(), file)
        ap = average_precision(model, detect_onnx().ONNXDetector(file), dataset, loaded.cfg)
        session, megabytes = checking.open_session(onnx.load(file)), file.stat().st_size / 1e6
    return Measurements(ap, megabytes, time_per_image(model, session, dataset, repeats, timed_images))


def detect_onnx() -> Any:
    """The module ``tools/deployment/detect_onnx.py``, which is part of no package: it runs alone."""
    folder = str(Path(__file__).resolve().parents[1] / 'deployment')
    if folder not in sys.path:
        sys.path.append(folder)
    import detect_onnx as module

    return module


@torch.no_grad()
def average_precision(model: Any, exported: Any, dataset: Any, cfg: Any) -> tuple[float, float]:
    """AP in percent of the detector and of its export; the latter gets the pixels that the pipeline's first step reads.

    Raises:
        UserError: The config's evaluator gives no such AP.
    """
    evaluators = [Evaluator(copy.deepcopy(cfg.test_evaluator)) for _ in range(2)]
    for index in range(len(dataset)):
        (ours,) = model.test_step(pseudo_collate([dataset[index]]))
        found = exported(dataset.pipeline.transforms[0](dataset.get_data_info(index))['img'])
        theirs = DetDataSample(
            metainfo=ours.metainfo,
            pred_instances=InstanceData(
                bboxes=torch.from_numpy(found.boxes),
                scores=torch.from_numpy(found.scores),
                labels=torch.from_numpy(found.labels),
            ),
        )
        for evaluator, sample in zip(evaluators, (ours, theirs)):
            evaluator.dataset_meta = dataset.metainfo
            evaluator.process([sample])
    first, second = (evaluator.evaluate(len(dataset)) for evaluator in evaluators)
    if AP not in first:
        raise UserError(f'test_evaluator={cfg.test_evaluator} gives no {AP}; name a CocoMetric with metric="bbox"')
    return 100 * first[AP], 100 * second[AP]


@torch.no_grad()
def time_per_image(model: Any, session: Any, dataset: Any, repeats: int, count: int) -> dict[str, list[float]]:
    """Milliseconds per image by runtime, on the first images of the data set."""
    batches = [model.data_preprocessor(pseudo_collate([dataset[index]])) for index in range(min(count, len(dataset)))]
    feeds = [
        dict(
            images=batch['inputs'].numpy(),
            image_sizes=torch.tensor([batch['data_samples'][0].img_shape[:2]], dtype=torch.float32).numpy(),
        )
        for batch in batches
    ]
    functions = dict(
        torch=lambda: [model.predict(batch['inputs'], batch['data_samples']) for batch in batches],
        onnxruntime=lambda: [session.run(None, feed) for feed in feeds],
    )
    times = times_in_turn(functions, repeats)
    return {name: [sample / len(batches) for sample in samples] for name, samples in times.items()}


HEADER = """| model | AP, torch | AP, onnxruntime | MB | torch, ms | onnxruntime, ms | torch / onnxruntime |
|---|---|---|---|---|---|---|"""


def markdown(name: str, measured: Measurements) -> str:
    """A line of the table; times are medians, and the ratio is the median of the turns' ratios."""
    ours, theirs = measured.times['torch'], measured.times['onnxruntime']
    cells = (
        name,
        *(f'{ap:.1f}' for ap in measured.ap),
        f'{measured.megabytes:.1f}',
        *(f'{Spread.of(times).median:.1f}' for times in (ours, theirs)),
        f'{ratios(ours, theirs).median:.2f}',
    )
    return f'| {" | ".join(cells)} |'


def main() -> None:
    """Measures each model, and prints its line of the table."""
    args = parse_args()
    for name in ('threads', 'repeats', 'timed_images'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f'--{name.replace("_", "-")} {value}: needs a whole number from 1 on')
    models = detector.named_models(args.models, args.names)
    writing.require_packages()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(HEADER)
    for name, config, checkpoint in models:
        with contextlib.redirect_stdout(sys.stderr):
            loaded = detector.load(detector.read_config(config, args), checkpoint, 'cpu')
            row = compare(loaded, args.repeats, args.timed_images)
        print(markdown(name, row), flush=True)
    print(f'\n{cpu_model()}, {torch.get_num_threads()} threads')


if __name__ == '__main__':
    main()
