"""Makes the set: pictures drawn by several processes, annotations collected, everything moved into place at once."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from . import layout, storage
from .coco_format import annotation, categories
from .layout import SPLITS, Parameters
from .scene import random_scene
from .storage import ShapesError

#: Of JPEG, with full colour resolution: a picture of 320 x 320 px takes about 33 kB, a fifth of what PNG takes.
QUALITY = 90
_JPEG = (
    (cv2.IMWRITE_JPEG_QUALITY, QUALITY),
    (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)


@dataclass(frozen=True)
class Drawn:
    """One picture that was written: split, number from 0, SHA-256 of the file, annotations without ids."""

    split: str
    index: int
    digest: str
    annotations: list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What :func:`make_shapes` did.

    Attributes:
        root: The folder of the set, absolute.
        made: Whether the set was made; False if it was there.
        reason: Why it had to be made; None if it was there.
        leftovers: Folders of killed runs that were removed.
    """

    root: Path
    made: bool
    reason: str | None
    leftovers: list[Path]


def make_shapes(
    root: str | Path,
    parameters: Parameters = Parameters(),  # noqa: B008  frozen
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Sees to it that a folder holds the shapes data set of these parameters; see docs/shapes.md.

    A set that is there and whole is left alone. One that is damaged is made anew. The folder is replaced only when it
    is finished, and never if it holds anything but a shapes data set.

    Args:
        root: The folder.
        parameters: What determines the set.
        workers: Processes to draw with; they do not change the result. With several, a script that calls this needs
            the usual ``if __name__ == '__main__':``.
        overwrite: Replace a set of other parameters.
        progress: Called with the number of pictures drawn and of all pictures.

    Raises:
        ValueError: ``workers`` is no integer from 1 up.
        ShapesError: ``root`` holds something else, or a worker ended before its work was done.
    """
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(f'workers={workers!r} is not possible; give an integer from 1 up')
    root = Path(root).expanduser().resolve()
    leftovers = storage.remove_leftovers(root)
    reason = storage.check(root, parameters, overwrite)
    if reason is not None:
        with storage.workshop(root) as folder:
            files = _draw_all(folder, parameters, workers, progress)
            storage.finish(folder, parameters, files)
            storage.publish(folder, root)
    return Outcome(root, reason is not None, reason, leftovers)


def draw(split: str, index: int, parameters: Parameters) -> tuple[bytes, list[dict[str, Any]]]:
    """One picture as JPEG, and its annotations without ids; the same for the same arguments."""
    size = (parameters.width, parameters.height)
    rng = np.random.default_rng([parameters.seed, SPLITS.index(split), index])
    picture, items = random_scene(size, index, rng, parameters.clutter, parameters.classes)
    encoded = cv2.imencode('.jpg', picture, [number for pair in _JPEG for number in pair])[1]
    return encoded.tobytes(), [annotation(item, size, rng) for item in items]


def _draw_all(
    folder: Path, parameters: Parameters, workers: int, progress: Callable[[int, int], None] | None
) -> dict[str, str]:
    """Draws and writes all pictures and annotations; returns path → SHA-256 of each file."""
    jobs = parameters.jobs()
    workers = min(workers, len(jobs))
    drawn = []
    source = _drawn(folder, parameters, jobs) if workers == 1 else _drawn_by_workers(folder, parameters, workers)
    with contextlib.closing(source):  # whatever happens here, no worker writes on
        for picture in source:
            drawn.append(picture)
            if progress is not None:
                progress(len(drawn), len(jobs))
    files = {}
    for split in SPLITS:
        pictures = sorted((picture for picture in drawn if picture.split == split), key=lambda picture: picture.index)
        content = json.dumps(_coco(pictures, parameters), separators=(',', ':')).encode()
        files[layout.annotation_path(split)] = storage.write(folder / layout.annotation_path(split), content)
        files |= {f'{split}/{layout.image_name(picture.index)}': picture.digest for picture in pictures}
    return files


def _coco(pictures: list[Drawn], parameters: Parameters) -> dict[str, Any]:
    """The content of an annotation file; ids start at 1, since pycocotools takes annotation 0 for none."""
    size = dict(width=parameters.width, height=parameters.height)
    images = [dict(id=picture.index + 1, file_name=layout.image_name(picture.index), **size) for picture in pictures]
    found = [(picture.index + 1, fields) for picture in pictures for fields in picture.annotations]
    return dict(
        info=dict(description='shapes of mmdet_gfl', version=str(layout.VERSION), parameters=parameters.as_json()),
        licenses=[],
        categories=categories(),
        images=images,
        annotations=[
            dict(id=number, image_id=image, **fields) for number, (image, fields) in enumerate(found, start=1)
        ],
    )


def _drawn(folder: Path, parameters: Parameters, jobs: list[tuple[str, int]]) -> Generator[Drawn, None, None]:
    """Draws and writes pictures, one after the other."""
    with _one_thread():
        for split, index in jobs:
            content, annotations = draw(split, index, parameters)
            digest = storage.write(folder / split / layout.image_name(index), content)
            yield Drawn(split, index, digest, annotations)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps OpenCV to one thread: pictures this small are drawn faster so, and processes do not fight over cores."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _drawn_by_workers(folder: Path, parameters: Parameters, workers: int) -> Generator[Drawn, None, None]:
    """As :func:`_drawn`, in some order, by processes that end when this one does."""
    context = multiprocessing.get_context('spawn')  # a fork of a process with threads, as torch's, may hang
    processes: dict[Connection, SpawnProcess] = {}
    try:
        for worker in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(sender, folder, parameters, worker, workers), daemon=True)
            process.start()
            sender.close()
            processes[receiver] = process
        yield from _received(dict(processes))
    finally:
        for receiver, process in processes.items():
            receiver.close()
            process.terminate()
            process.join()


def _received(processes: dict[Connection, SpawnProcess]) -> Iterator[Drawn]:
    """What the workers send until each has sent None.

    Raises:
        ShapesError: A worker ended before.
    """
    while processes:
        for receiver in wait(list(processes)):
            assert isinstance(receiver, Connection)
            try:
                message = receiver.recv()
            except EOFError:
                processes[receiver].join()
                raise ShapesError(
                    f'a worker ended before its work was done (exit status {processes[receiver].exitcode}; -9 is most '
                    f'often a lack of memory); start again with fewer workers'
                ) from None
            if isinstance(message, Exception):
                raise message
            if message is None:
                del processes[receiver]
            else:
                yield message


def _work(sender: Connection, folder: Path, parameters: Parameters, worker: int, workers: int) -> None:
    """A worker: draws every ``workers``-th picture and sends what it wrote, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to answer
    with contextlib.suppress(BrokenPipeError):  # the first process is gone
        try:
            for picture in _drawn(folder, parameters, parameters.jobs()[worker::workers]):
                sender.send(picture)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            sender.send(error)
        else:
            sender.send(None)
