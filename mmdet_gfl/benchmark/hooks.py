"""Hooks of a benchmark's training: seeds by epoch, finite losses, the machine, progress, a timing."""

from __future__ import annotations

import json
import random
import statistics
from contextlib import suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.benchmark import timer

from mmdet_gfl.engine.files import write
from mmdet_gfl.engine.processes import cores
from mmdet_gfl.registry import HOOKS

#: What a result says of the place it comes from; written into the work dir.
WHERE = 'where.json'
#: Iterations of a timing; the first two are warm-up.
ITERATIONS = 6
#: Checkpoint of a timing, beside what the timing writes.
CHECKPOINT = 'timing.pth'
#: Progress of a training, in its work dir.
PROGRESS = 'progress.json'


@FUNCTIONS.register_module(name='mmdet_gfl_seed_worker')
def seed_worker(worker_id: int) -> None:
    """Seed a data worker from what torch gave it, which the main process's seed and the worker's number determine.

    MMEngine seeds the workers alike at every start of a training, so a resumed one would repeat the augmentations of
    its first epochs.
    """
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)


class _SeededByName(TorchFunctionMode):
    """Context in which what is drawn for a parameter depends on the seed and the parameter's name alone.

    A layer that a head has renamed counts by its host's name: ``gfl_cls`` is ``atss_cls``.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__()
        self.seed = seed
        former = {new: old for one in model.modules() for old, new in getattr(one, 'renamed_layers', {}).items()}
        self.names = {
            id(parameter): '.'.join(former.get(part, part) for part in name.split('.'))
            for name, parameter in model.named_parameters()
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for name in filter(None, (self.names.get(id(value)) for value in (*args, *kwargs.values()))):
            state = np.random.SeedSequence([self.seed, *name.encode()]).generate_state(1, np.uint64)
            torch.manual_seed(int(state[0]))
        return func(*args, **kwargs)


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Hook that seeds all generators before each epoch by seed, epoch and rank, and asks for repeatable operators.

    Each parameter is initialized from the seed and its name, whatever was built or initialized before: the layers that
    two rows have in common start alike. What an epoch draws depends on nothing before it: a training that was killed
    and resumed draws what an uninterrupted one draws.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_run(self, runner: Runner) -> None:
        """Seed the initialization, and choose operators that give the same every time where there are some."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        initialize = model.init_weights

        def init_weights() -> None:
            with _SeededByName(model, self.seed):
                initialize()

        model.init_weights = init_weights
        with suppress(AttributeError):  # torch before 2.2 never fills
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed Python's, NumPy's and torch's generators."""
        state = np.random.SeedSequence([self.seed, runner.epoch, get_rank()]).generate_state(3)
        random.seed(int(state[0]))
        np.random.seed(state[1])
        torch.manual_seed(int(state[2]))


@HOOKS.register_module()
class FiniteHook(Hook):
    """Hook that ends a training whose loss or weights are not finite, before they are saved in a checkpoint.

    Args:
        interval: Iterations from one look at the loss to the next; each makes a GPU wait.
    """

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        """Look at the loss.

        Raises:
            FloatingPointError: It is NaN or infinite.
        """
        due = self.every_n_inner_iters(batch_idx, self.interval) or self.end_of_epoch(
            runner.train_dataloader, batch_idx
        )
        if due and outputs and 'loss' in outputs and not torch.isfinite(outputs['loss']).all():
            value = float(outputs['loss'])
            raise FloatingPointError(f'the loss is {value} in epoch {runner.epoch + 1}, iteration {batch_idx + 1}')

    def after_train_epoch(self, runner: Runner) -> None:
        """Look at the weights; it comes before the checkpoint.

        Raises:
            FloatingPointError: Some are NaN or infinite.
        """
        for name, parameter in runner.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise FloatingPointError(f'{name} is not finite after epoch {runner.epoch + 1}')


def _cpu() -> str:
    """Number of cores, and the instructions that torch uses: with others the last digits of a sum are others."""
    count = cores()
    return f'CPU, {count} core{"s" * (count > 1)}, {torch.backends.cpu.get_cpu_capability()}'


@HOOKS.register_module()
class WhereHook(Hook):
    """Hook that writes device, versions, processes, threads and parameters of a training into its work dir."""

    @master_only
    def before_run(self, runner: Runner) -> None:
        """Write them, on the first rank."""
        cuda = torch.cuda.is_available()
        names = ('torch', 'mmdet', 'mmengine', 'numpy')
        where = dict(
            device=torch.cuda.get_device_name() if cuda else _cpu(),
            processes=get_world_size(),
            threads=torch.get_num_threads(),
            parameters=sum(parameter.numel() for parameter in runner.model.parameters()),
            versions={name: import_module(name).__version__ for name in names},
        )
        write(Path(runner.work_dir, WHERE), json.dumps(where))


@HOOKS.register_module()
class ProgressHook(Hook):
    """Hook that keeps the progress of a training in a file of its work dir, for whoever watches it.

    The file holds the fields of :class:`mmdet_gfl.benchmark.progress.Progress`. A full disk does not end the training.

    Args:
        interval: Iterations from one note to the next; there is one at the end of each epoch too.
    """

    priority = 'VERY_LOW'  # after the hook that takes the time

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self.noted: dict[str, Any] = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        """Note epoch, iteration and the time left."""
        if self.every_n_inner_iters(batch_idx, self.interval) or self.end_of_epoch(runner.train_dataloader, batch_idx):
            iterations, eta = len(runner.train_dataloader), runner.message_hub.get_info('eta')
            self._write(runner, epoch=runner.epoch + 1, iteration=batch_idx + 1, iterations=iterations, eta=eta)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note the AP, where the evaluation gives one."""
        if self.noted and metrics and 'coco/bbox_mAP' in metrics:
            self._write(runner, ap=100 * float(metrics['coco/bbox_mAP']))

    def _write(self, runner: Runner, **values: float) -> None:
        self.noted.update(values)
        if get_rank() == 0:
            with suppress(OSError):
                write(Path(runner.work_dir, PROGRESS), json.dumps(self.noted), cached=True)


@HOOKS.register_module()
class StockSSDHook(Hook):
    """Hook that lets MMDetection's ``SSDHead`` predict: 3.3 asks its ``loss_cls`` for a property, and it has none."""

    def before_run(self, runner: Runner) -> None:
        """Give each such head None, which has no such property either."""
        from mmdet.models.dense_heads import SSDHead  # takes seconds, which `status` would wait for

        for module in runner.model.modules():
            if isinstance(module, SSDHead) and not hasattr(module, 'loss_cls'):
                module.loss_cls = None


@HOOKS.register_module()
class TimingHook(Hook):
    """Hook that ends a training after :data:`ITERATIONS`, and writes how long they took and the bytes they need.

    Args:
        out: File for a :class:`mmdet_gfl.benchmark.dry_run.Timing`, as JSON.
    """

    def __init__(self, out: str) -> None:
        self.out = Path(out)
        self.marks: list[float] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        """Take the time, and end the process after the last.

        Raises:
            SystemExit: With status 0, when the times are written.
        """
        self.marks.append(timer())
        if len(self.marks) < ITERATIONS:
            return
        if get_rank() == 0:
            runner.save_checkpoint(str(self.out.parent), CHECKPOINT)
            steps = [after - before for before, after in zip(self.marks[1:], self.marks[2:])]
            timing = dict(
                iteration=statistics.median(steps),
                iterations=len(runner.train_dataloader),
                images=len(runner.train_dataloader.dataset),
                val_image=self._val_image(runner),
                val_images=len(runner.val_dataloader.dataset),
                checkpoint=self.out.with_name(CHECKPOINT).stat().st_size,
                memory=torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0,
            )
            write(self.out, json.dumps(timing))
        raise SystemExit(0)

    @staticmethod
    def _val_image(runner: Runner) -> float:
        """Seconds per image of the second and third validation batch, read and detected in."""
        model = getattr(runner.model, 'module', runner.model)
        model.eval()
        times, images, start = 0.0, 0, timer()
        for number, batch in enumerate(islice(runner.val_dataloader, 3)):
            with torch.no_grad():
                model.val_step(batch)
            end = timer()
            if number or len(runner.val_dataloader) == 1:
                times, images = times + end - start, images + len(batch['data_samples'])
            start = end
        return times / max(images, 1)
