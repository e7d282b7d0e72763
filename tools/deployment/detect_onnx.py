"""Run a detector that tools/export_onnx.py has written on images: detections as JSON, as pictures, and their AP.

It is one file that needs numpy, OpenCV and onnxruntime alone (pycocotools for --ann-file): copy it to where the
detector runs. How an image becomes the graph's input stands in the metadata of the ONNX file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnxruntime

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
INTERPOLATION = dict(
    nearest=cv2.INTER_NEAREST,
    bilinear=cv2.INTER_LINEAR,
    bicubic=cv2.INTER_CUBIC,
    area=cv2.INTER_AREA,
    lanczos=cv2.INTER_LANCZOS4,
)


class UserError(SystemExit):
    """Something the user can fix: ends the tool with one sentence on stderr and exit status 1."""


class Detections(NamedTuple):
    """Detections of an image, in pixels of the file, by descending score.

    Attributes:
        boxes: x1, y1, x2, y2; (M, 4).
        scores: (M,).
        labels: Index of the class, (M,).
        std: Standard deviation of the sides x1, y1, x2, y2, (M, 4); None if the graph gives none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    std: np.ndarray | None


class ONNXDetector:
    """An exported detector.

    Args:
        path: The ONNX file, with detections as its output.
        providers: Of onnxruntime, such as ``['CUDAExecutionProvider']``; default: the CPU.

    Raises:
        UserError: It is missing, broken, or has other outputs.
    """

    def __init__(self, path: str | Path, providers: Sequence[str] = ('CPUExecutionProvider',)) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns that image_sizes can be given
        if not Path(path).is_file():
            raise UserError(f'model {path} does not exist; write it with tools/export_onnx.py')
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # onnxruntime's errors have no common class
            reason = str(error).splitlines()[0]
            raise UserError(f'model {path} cannot be loaded, it is cut short or not an ONNX file: {reason}') from error
        #: The metadata, see docs/export.md.
        self.facts = read_facts(self.session.get_modelmeta().custom_metadata_map)
        if self.facts.get('output') != 'nms':
            raise UserError(
                f'model {path} does not give detections; export it with tools/export_onnx.py --output nms '
                f'(docs/export.md has the post-processing of the other outputs)'
            )
        self.names = [output.name for output in self.session.get_outputs()]
        sizes = self.session.get_inputs()[0].shape[2:]
        #: Height and width, where the graph takes one size only.
        self.fixed: tuple[int, int] | None = None if isinstance(sizes[0], str) else (sizes[0], sizes[1])

    def __call__(self, image: np.ndarray) -> Detections:
        """Detections of an image (H, W, 3), BGR, uint8, as ``cv2.imread`` gives it."""
        images, size, scale = self.prepare(image)
        feed = dict(images=images, image_sizes=np.array([size], np.float32))
        outputs = dict(zip(self.names, self.session.run(self.names, feed)))
        kept = outputs['labels'][0] >= 0
        dets, labels = outputs['dets'][0][kept], outputs['labels'][0][kept]
        std = outputs['std'][0][kept] / scale if 'std' in outputs else None
        return Detections(dets[:, :4] / scale, dets[:, 4], labels, std)

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int], np.ndarray]:
        """The graph's input, the size in it that boxes are clipped to, and the scale (w, h, w, h).

        Raises:
            UserError: The image does not fit the one size that the graph takes.
        """
        height, width = image.shape[:2]
        if self.facts['resize']:
            image = self._resize(image)
        scale = np.array([image.shape[1] / width, image.shape[0] / height] * 2, np.float32)
        if self.facts['pad']:
            image = self._pad(image, self.facts['pad'])
        size = (image.shape[0], image.shape[1])
        return self._normalize(image), size, scale

    def _resize(self, image: np.ndarray) -> np.ndarray:
        rule, (height, width) = self.facts['resize'], image.shape[:2]
        new_width, new_height = rule['scale']
        if rule['keep_ratio']:
            long, short = max(rule['scale']), min(rule['scale'])
            factor = min(long / max(height, width), short / min(height, width))
            if self.fixed:  # a standing image in a lying input
                factor = min(factor, self.fixed[0] / height, self.fixed[1] / width)
            new_width, new_height = int(width * factor + 0.5), int(height * factor + 0.5)
        return cv2.resize(image, (new_width, new_height), interpolation=INTERPOLATION[rule['interpolation']])

    def _pad(self, image: np.ndarray, rule: dict[str, Any]) -> np.ndarray:
        height, width = image.shape[:2]
        if rule['square']:
            height = width = max(height, width)
        if rule['divisor']:
            height, width = (-(-side // rule['divisor']) * rule['divisor'] for side in (height, width))
        elif rule['size']:
            width, height = rule['size']
        return enlarge(image, height, width, rule['value'])

    def _normalize(self, image: np.ndarray) -> np.ndarray:
        """(1, 3, H, W) float32, padded as the detector pads: after the normalisation."""
        facts = self.facts
        mean, std = np.array(facts['mean'], np.float32), np.array(facts['std'], np.float32)
        pixels, value = image.astype(np.float32), [facts['pad_value']] * 3
        if facts['preprocess']:  # the graph normalises, the padding too
            value = (value * std + mean)[:: -1 if facts['channel_order'] == 'RGB' else 1].tolist()
        else:
            pixels = ((pixels[..., ::-1] if facts['channel_order'] == 'RGB' else pixels) - mean) / std
        divisor = facts['size_divisor']
        height, width = self.fixed or (-(-side // divisor) * divisor for side in image.shape[:2])
        if image.shape[0] > height or image.shape[1] > width:
            raise UserError(
                f'an image of {image.shape[1]} x {image.shape[0]} pixels does not fit the {width} x {height} that the '
                f'graph takes; export it with --dynamic all, or with a larger --shape'
            )
        padded = enlarge(np.ascontiguousarray(pixels), height, width, value)
        return np.ascontiguousarray(padded.transpose(2, 0, 1)[None])


def read_facts(texts: dict[str, str]) -> dict[str, Any]:
    """The metadata that is JSON; tools that work on a file, as onnxruntime's quantisation, add texts of their own."""
    facts: dict[str, Any] = {}
    for key, text in texts.items():
        try:
            facts[key] = json.loads(text)
        except ValueError:
            continue
    return facts


def enlarge(image: np.ndarray, height: int, width: int, value: Sequence[float]) -> np.ndarray:
    """An image with a constant border below and to the right."""
    missing = max(height - image.shape[0], 0), max(width - image.shape[1], 0)
    return cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_CONSTANT, value=list(value))


def read_image(path: Path) -> np.ndarray:
    """An image file as BGR, upright whatever its EXIF tag says, grayscale as three equal channels.

    Raises:
        UserError: It is not an image.
    """
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise UserError(f'image {path} cannot be read: it is missing, damaged or not an image')
    return image


def coco_results(found: Detections, image_id: int | str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections of an image as entries of COCO's result format; ``std`` is beside what COCO knows."""
    entries = []
    for index, (x1, y1, x2, y2) in enumerate(found.boxes.astype(float).tolist()):
        entry: dict[str, Any] = dict(
            image_id=image_id,
            category_id=category_ids[int(found.labels[index])],
            bbox=[x1, y1, x2 - x1, y2 - y1],
            score=float(found.scores[index]),
        )
        if found.std is not None:
            entry['std'] = found.std[index].astype(float).tolist()
        entries.append(entry)
    return entries


def draw(image: np.ndarray, found: Detections, classes: Sequence[str], score_thr: float) -> np.ndarray:
    """The image with boxes from ``score_thr`` on; a side's band is one standard deviation to either side of it."""
    picture = image.copy()
    for index in np.flatnonzero(found.scores >= score_thr)[::-1]:
        label = int(found.labels[index])
        hue = np.array([[[label * 67 % 180, 220, 230]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
        x1, y1, x2, y2 = found.boxes[index]
        if found.std is not None:
            picture = _with_bands(picture, found.boxes[index], found.std[index], colour)
        corners = [(round(float(x)), round(float(y))) for x, y in ((x1, y1), (x2, y2))]
        cv2.rectangle(picture, *corners, colour, 2)
        name = classes[label] if label < len(classes) else str(label)
        place = (corners[0][0], max(corners[0][1] - 4, 12))
        cv2.putText(picture, f'{name} {found.scores[index]:.2f}', place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1)
    return picture


def _with_bands(picture: np.ndarray, box: np.ndarray, std: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    (x1, y1, x2, y2), (left, top, right, bottom) = box, std
    bands = picture.copy()
    for start, end in (
        ((x1 - left, y1), (x1 + left, y2)),
        ((x1, y1 - top), (x2, y1 + top)),
        ((x2 - right, y1), (x2 + right, y2)),
        ((x1, y2 - bottom), (x2, y2 + bottom)),
    ):
        points = [tuple(round(float(value)) for value in point) for point in (start, end)]
        cv2.rectangle(bands, points[0], points[1], colour, -1)
    return cv2.addWeighted(bands, 0.35, picture, 0.65, 0)


class Source(NamedTuple):
    """Images with their ids, and the ids of the classes.

    Attributes:
        images: Id and file.
        category_ids: By index of the class.
        coco: The annotations, or None.
    """

    images: list[tuple[int | str, Path]]
    category_ids: list[int]
    coco: Any = None


def find_images(places: Sequence[Path], num_classes: int) -> Source:
    """Files, and those in folders; an image's id is its file's name, a class's its index.

    Raises:
        UserError: A place does not exist, or there is not one image.
    """
    files: list[Path] = []
    for place in places:
        if not place.exists():
            raise UserError(f'{place} does not exist; name images or folders of images')
        found = sorted(place.iterdir()) if place.is_dir() else [place]
        files += [file for file in found if not place.is_dir() or file.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f'{", ".join(map(str, places))} holds no images ({", ".join(SUFFIXES)})')
    return Source([(file.name, file) for file in files], list(range(num_classes)))


def read_annotations(path: Path, folders: Sequence[Path], classes: Sequence[str]) -> Source:
    """The images of COCO annotations, in a folder.

    Raises:
        UserError: pycocotools is missing, the file is not in that format or of other classes, or the images are not in
            one folder.
    """
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise UserError(f'--ann-file needs pycocotools ({error}): pip install pycocotools') from error
    if len(folders) != 1 or not folders[0].is_dir():
        raise UserError('--ann-file needs one folder with its images as IMAGES')
    try:
        coco = COCO(str(path))
        ids = {category['name']: category['id'] for category in coco.loadCats(coco.getCatIds())}
        images = [(one['id'], folders[0] / one['file_name']) for one in coco.loadImgs(sorted(coco.getImgIds()))]
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f'--ann-file {path} cannot be read as COCO annotations: {error}') from error
    missing = [name for name in classes if name not in ids]
    if missing or not classes:
        raise UserError(f'--ann-file {path} lacks classes of the model: {", ".join(missing) or "the model names none"}')
    return Source(images, [ids[name] for name in classes], coco)


def print_average_precision(source: Source, results: list[dict[str, Any]]) -> None:
    """COCO's table of the boxes, on the images of the annotations."""
    from pycocotools.cocoeval import COCOeval

    if not results:
        print('AP 0.000: not one detection')
        return
    evaluation = COCOeval(source.coco, source.coco.loadRes(results), 'bbox')
    evaluation.params.catIds = source.category_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', type=Path, help='ONNX file of tools/export_onnx.py')
    parser.add_argument('images', type=Path, nargs='+', help='images, or folders of images')
    parser.add_argument('--out-dir', type=Path, help='draw into this folder')
    parser.add_argument('--json', type=Path, help="write the detections to this file, in COCO's result format")
    parser.add_argument('--ann-file', type=Path, help='COCO annotations of the one folder named: print the AP')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score that is drawn, default: %(default)s')
    parser.add_argument(
        '--provider', default='CPUExecutionProvider', help='execution provider of onnxruntime; default: %(default)s'
    )
    return parser.parse_args(argv)


def detect_all(detector: ONNXDetector, source: Source) -> Iterator[tuple[int | str, Path, np.ndarray, Detections]]:
    """Id, file, pixels and detections of each image."""
    for image_id, file in source.images:
        image = read_image(file)
        yield image_id, file, image, detector(image)


def main(argv: Sequence[str] | None = None) -> None:
    """Detects, draws, writes and measures."""
    args = parse_args(argv)
    detector = ONNXDetector(args.model, [args.provider])
    classes = detector.facts['classes']
    if args.ann_file:
        source = read_annotations(args.ann_file, args.images, classes)
    else:
        source = find_images(args.images, max(len(classes), 1000))
    for folder in filter(None, (args.out_dir, args.json and args.json.parent)):
        folder.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for image_id, file, image, found in detect_all(detector, source):
        results += coco_results(found, image_id, source.category_ids)
        if args.out_dir:
            place = (args.out_dir / file.name).with_suffix('.png')
            cv2.imencode('.png', draw(image, found, classes, args.score_thr))[1].tofile(place)
    print(f'{len(source.images)} images, {len(results)} detections')
    if args.json:
        args.json.write_text(json.dumps(results))
    if args.ann_file:
        print_average_precision(source, results)


if __name__ == '__main__':
    main()
