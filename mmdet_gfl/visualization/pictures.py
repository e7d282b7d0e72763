"""Image files in, pictures of their detections out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmengine.structures import InstanceData

from mmdet_gfl.analysis.detector import Detector, turn_on_distributions
from mmdet_gfl.engine.files import make_folder
from mmdet_gfl.engine.launch import UserError

from .distributions import draw

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')

#: Boxes (M, 4), xyxy in pixels, by the file name in an annotation file.
GroundTruth = dict[str, np.ndarray]


def image_files(path: Path) -> list[Path]:
    """The image itself, or the images of a folder by name.

    Raises:
        UserError: There is no such file or folder, or the folder has no images.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f'there is no image and no folder at {path}')
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f'folder {path} has no images; looked for {", ".join(IMAGE_SUFFIXES)}')
    return files


def read_ground_truth(path: Path) -> GroundTruth:
    """The boxes of a COCO annotation file; crowd regions are left out.

    Raises:
        UserError: The file is missing or holds something else.
    """
    if not path.is_file():
        raise UserError(f'--ann-file {path} does not exist')
    try:
        content = json.loads(path.read_text())
        boxes: dict[int | str, list[list[float]]] = {image['id']: [] for image in content['images']}
        for one in content['annotations']:
            if not one.get('iscrowd'):
                x, y, width, height = one['bbox']
                boxes[one['image_id']].append([x, y, x + width, y + height])
        return {
            Path(image['file_name']).as_posix(): np.array(boxes[image['id']], float).reshape(-1, 4)
            for image in content['images']
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'--ann-file {path} is not a COCO annotation file ({type(error).__name__}: {error}); it needs images and '
            f'annotations with bbox as x, y, width, height'
        ) from error


def boxes_of(truth: GroundTruth, image: Path) -> np.ndarray | None:
    """The boxes of an image file, (M, 4), if the annotation file lists it; folders in its name have to agree."""
    parts = image.absolute().parts[1:]
    names = ('/'.join(parts[start:]) for start in range(len(parts)))
    return next((truth[name] for name in names if name in truth), None)


def read_image(path: Path) -> np.ndarray:
    """An image, (H, W, 3) uint8, RGB, turned as its EXIF data say, as MMDetection reads it.

    Raises:
        UserError: It cannot be read.
    """
    try:
        image: np.ndarray = mmcv.imread(path, channel_order='rgb')
        return image
    except cv2.error as error:
        raise UserError(f'image {path} cannot be read: it is empty, damaged or not an image') from error


def detect(detector: Detector, image: Path, score_thr: float) -> InstanceData:
    """The detections of an image file with a score above ``score_thr``, on the CPU, in pixels of the image."""
    from mmdet.apis import inference_detector

    results = inference_detector(detector.model, str(image)).pred_instances.cpu()
    return results[results.scores > score_thr]


def picture_files(files: Sequence[Path], out_dir: Path) -> list[Path]:
    """Paths of the pictures: each image's name with ``.png``, made unique where two would be the same.

    Raises:
        UserError: An image would be overwritten.
    """
    stems = Counter(file.stem for file in files)
    outs = [out_dir / f'{file.stem if stems[file.stem] == 1 else file.name}.png' for file in files]
    if len({*outs}) < len(outs):  # a.jpg beside a.jpg.bmp
        outs = [out_dir / f'{file.name}.png' for file in files]
    images = {file.resolve() for file in files}
    for out in outs:
        if out.resolve() in images:
            raise UserError(f'--out-dir {out_dir}: the picture would overwrite the image {out}; name another folder')
    return outs


def draw_files(
    detector: Detector,
    files: list[Path],
    out_dir: Path,
    truth: GroundTruth | None = None,
    score_thr: float = 0.3,
    max_boxes: int = 10,
    max_rows: int = 4,
) -> Iterator[Path]:
    """Draw each image's detections with :func:`draw` into ``out_dir``, and name what was written.

    Raises:
        UserError: The model predicts no distributions; an image cannot be read; none is in the annotation file; the
            pictures cannot be written.
    """
    if not detector.cfg.get('test_dataloader'):
        raise UserError(f'config {detector.cfg.filename} has no test_dataloader, whose pipeline prepares the images')
    turn_on_distributions(detector)
    boxes = [boxes_of(truth or {}, file) for file in files]
    if truth is not None and all(one is None for one in boxes):
        raise UserError(f'--ann-file lists none of the images, such as {files[0]}; its file_name entries differ')
    outs = picture_files(files, out_dir)
    make_folder('--out-dir', out_dir)
    for file, objects, out in zip(files, boxes, outs):
        image = read_image(file)
        results = detect(detector, file, score_thr)
        figure = draw(image, results, detector.classes, objects, max_boxes, max_rows)
        figure.savefig(out)
        yield out
