"""Train a detector: MMDetection's tool and flags, with a look at the user's files as they are read."""

import argparse

import torch

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet.utils import setup_cache_size_limit_of_dynamo

from mmdet_gfl.engine import launch


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description='Train a detector')
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the lr with the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from the given checkpoint; without a value, from the latest in the work dir',
    )
    launch.add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Checks, announces and trains."""
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    cfg = launch.load_config(args)
    if args.amp:
        if not torch.cuda.is_available():
            raise launch.UserError('--amp needs a GPU, and torch sees none; leave it out')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise launch.UserError(
                f'--auto-scale-lr needs auto_scale_lr=dict(enable=True, base_batch_size=...) in {args.config}'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume

    launch.check_data(cfg, 'train', 'val')
    checkpoint = launch.find_checkpoint(cfg)
    if checkpoint:
        launch.check_checkpoint(checkpoint)
    launch.log_run_summary(cfg, 'training', checkpoint)

    def train() -> None:
        runner = launch.build_runner(cfg)
        launch.observe(runner, 'train', 'val')
        if checkpoint:
            runner.register_hook(launch.CheckCheckpointHook(checkpoint, 'resume' if cfg.get('resume') else 'start'))
        runner.train()

    launch.run(train, cfg)


if __name__ == '__main__':
    main()
