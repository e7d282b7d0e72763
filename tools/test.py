"""Test a detector: MMDetection's tool and flags, with a look at the user's files as they are read."""

import argparse

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.utils import setup_cache_size_limit_of_dynamo

from mmdet_gfl.engine import launch


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description='Test a detector')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='write the detections to this .pkl file')
    parser.add_argument('--show', action='store_true', help='show each image with its detections')
    parser.add_argument('--show-dir', help='draw into this folder below the work dir')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that an image is shown')
    parser.add_argument('--tta', action='store_true', help='test with test-time augmentation')
    launch.add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Checks, announces and tests."""
    args = parse_args()
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise launch.UserError(f'--out {args.out}: the file must end in .pkl or .pickle')
    setup_cache_size_limit_of_dynamo()
    cfg = launch.load_config(args)
    launch.check_data(cfg, 'test')
    launch.check_checkpoint(args.checkpoint)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    if args.tta:
        launch.use_tta(cfg)

    launch.log_run_summary(cfg, 'testing')

    def test() -> None:
        runner = launch.build_runner(cfg)
        launch.observe(runner, 'test')
        runner.register_hook(launch.CheckCheckpointHook(args.checkpoint, 'test'))
        if args.out is not None:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
        runner.test()

    launch.run(test, cfg)


if __name__ == '__main__':
    main()
