"""NMS and soft-NMS by the calling conventions of ``mmcv._ext``, with the results of its CPU operators.

Boxes are (N, 4), [x1, y1, x2, y2]; a width is x2 - x1 + offset. NMS sorts by score, highest first, and box i drops a
later box j if IoU(i, j) > threshold. mmcv computes in float32, the threshold included, so two boxes whose IoU is the
threshold depend on the rounding of each step: the steps and their order here are mmcv's. Halves are computed in
float32, float64 (which mmcv refuses) as it is.

mmcv's CUDA kernel compares ``inter > threshold * union`` instead. This differs by the rounding, and for boxes whose
area is negative (x2 < x1 or y2 < y1 but not both), which it drops and its CPU operator keeps. Here every device
follows the CPU operator.
"""

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdet_gfl.compat.operators import torchvision_ops

# Where numpy is used: it keeps to one thread, and sharing steps this small among several costs more than it saves as
# soon as a machine is busy.
_NUMPY_DEVICES = ('cpu',)

# How many boxes are decided at a time, and how many pairs are compared at a time. On a CPU the pairs have to stay in
# the cache; a GPU prefers few large steps.
_CPU_STEPS = (256, 2**16)
_GPU_STEPS = (1024, 2**24)

#: An array of `xp`, which is numpy or torch: the names used here are the same in both.
_Array = Any

_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes that stay, by descending score; int64, on the boxes' device.

    Args:
        boxes: (N, 4).
        scores: (N,), of any sign; NaN sorts first.
        iou_threshold: A later box is dropped above it, not at it.
        offset: 0, or 1 for boxes whose x2 and y2 are the last pixel inside.
    """
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.int64)
    order = scores.sort(0, descending=True).indices
    boxes = boxes[order].to(torch.promote_types(boxes.dtype, torch.float32))
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    keep = _torchvision_nms(boxes, threshold) if offset == 0 else None
    if keep is not None:
        return order[keep]
    sides = _with_area(boxes, offset)
    if boxes.device.type in _NUMPY_DEVICES:
        with np.errstate(all='ignore'):  # 0 / 0 for empty boxes
            return torch.from_numpy(blockwise_nms(np, order.numpy(), sides.numpy(), threshold, offset, *_CPU_STEPS))
    result: Tensor = blockwise_nms(torch, order, sides, threshold, offset, *_GPU_STEPS)
    return result


def _torchvision_nms(boxes: Tensor, threshold: float) -> Tensor | None:
    """Return the indices that torchvision keeps, or None where torchvision or its operator for the device is missing.

    Args:
        boxes: (N, 4), float32 or float64, best first.
        threshold: A value that the boxes' precision has, for torchvision compares in double precision.
    """
    ops = torchvision_ops()
    if ops is None:
        return None
    try:
        return ops.nms(boxes, torch.arange(len(boxes), 0, -1).to(boxes), threshold)
    except NotImplementedError:  # what torch raises for an operator that was built without CUDA
        return None


def _with_area(boxes: Tensor, offset: int) -> Tensor:
    """(N, 4) boxes to (5, N): x1, y1, x2, y2 and the area."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)])


def blockwise_nms(
    xp: ModuleType, order: _Array, sides: _Array, threshold: float, offset: int, block: int, max_pairs: int
) -> _Array:
    """NMS in whole-array steps: decide the best boxes, drop what they overlap, go on with what is left.

    Args:
        xp: numpy for arrays, torch for tensors.
        order: (N,) indices of the boxes, best first.
        sides: (5, N) x1, y1, x2, y2 and area in this order, float32 or float64.
        threshold: A later box is dropped above this IoU; a value that the boxes' precision has.
        offset: 0 or 1, as in :func:`nms`.
        block: How many boxes to decide at a time.
        max_pairs: Upper bound on the pairs compared at a time (at least one box with a block).

    Returns:
        The entries of ``order`` that stay.
    """
    kept = []
    while len(order):
        best = sides[:, :block]
        stays = xp.asarray(_resolve(_overlaps(xp, best, best, threshold, offset)))
        kept.append(order[:block][stays])
        order, sides = order[block:], sides[:, block:]
        free = _free_of(xp, sides, best[:, stays], threshold, offset, max_pairs)
        order, sides = order[free], sides[:, free]
    return xp.concatenate(kept)


def _overlaps(xp: ModuleType, rows: _Array, columns: _Array, threshold: float, offset: int) -> _Array:
    """(5, R) and (5, C) to (R, C): whether the IoU is above the threshold.

    A NaN, or the 0 / 0 of two empty boxes, is not above. In place for speed: this is where the time goes.
    """
    x1, y1, x2, y2, area = rows[:, :, None]
    width, height = xp.minimum(x2, columns[2]), xp.minimum(y2, columns[3])
    for length, start, other in ((width, x1, columns[0]), (height, y1, columns[1])):
        length -= xp.maximum(start, other)
        if offset:
            length += offset
        xp.clip(length, 0, None, out=length)
    width *= height  # the intersection
    union = xp.add(area, columns[4], out=height)
    union -= width
    width /= union
    return width > threshold


def _resolve(drops: _Array) -> list[bool]:
    """(B, B), whether box i overlaps box j, to (B,), whether no box i < j that stays itself overlaps box j.

    Rows become integers of B bits, so that a box costs a few operations of Python, and a GPU waits once.
    """
    rows = np.packbits(torch.as_tensor(drops).cpu().numpy(), axis=1, bitorder='little')
    stays: list[bool] = []
    dropped = 0
    for index, row in enumerate(rows):
        stays.append(not dropped >> index & 1)
        if stays[-1]:
            dropped |= int.from_bytes(row.tobytes(), 'little')
    return stays


def _free_of(xp: ModuleType, sides: _Array, kept: _Array, threshold: float, offset: int, max_pairs: int) -> _Array:
    """(N,), whether a box of ``sides`` (5, N) is overlapped by none of ``kept`` (5, K)."""
    chunk = max(1, max_pairs // kept.shape[1])
    starts = range(0, max(1, sides.shape[1]), chunk)
    parts = (sides[:, start : start + chunk] for start in starts)
    return ~xp.concatenate([_overlaps(xp, kept, part, threshold, offset).any(0) for part in parts])


@torch.no_grad()
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap a better one, and return the indices of the K boxes that stay.

    Args:
        boxes: (N, 4), on the CPU.
        scores: (N,), on the CPU.
        dets: (N, 5), on the CPU; its first K rows are overwritten by the boxes that stay and their new scores, in the
            order of the result (descending by the new score).
        iou_threshold: The naive and the linear method lower scores from this IoU on.
        sigma: Width of the gaussian method.
        min_score: A box is dropped when its score falls below.
        method: 0 naive (factor 0), 1 linear (1 - IoU), 2 gaussian (exp(-IoU² / sigma)).
        offset: As in :func:`nms`.
    """
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    columns = torch.cat([_with_area(boxes.to(dtype), offset), scores.to(dtype).unsqueeze(0)])
    state, index = columns.numpy(), np.arange(boxes.size(0))  # rows x1, y1, x2, y2, area, score
    threshold, width, lowest = (state.dtype.type(value) for value in (iou_threshold, sigma, min_score))
    done = 0
    with np.errstate(all='ignore'):  # 0 / 0 for empty boxes
        while done < len(index):
            _bring_best_to(done, state, index)
            rest = state[:, done + 1 :]
            rest[5] *= _soft_factor(_ious(state[:, done], rest, offset), threshold, width, method)
            places = _close_gaps(done + 1, state[5] < lowest)
            state, index = state[:, places], index[places]
            done += 1
    dets[: len(index)] = torch.from_numpy(state[[0, 1, 2, 3, 5]].T)
    return torch.from_numpy(index)


def _bring_best_to(place: int, state: np.ndarray, index: np.ndarray) -> None:
    """Swap the box of the highest score from ``place`` on, the first of equals, to ``place``.

    As in mmcv's loop a NaN never beats another score, and is never beaten.
    """
    scores = state[5, place:]
    if np.isnan(scores[0]):
        return
    best = place + int(np.nanargmax(scores))
    state[:, [place, best]] = state[:, [best, place]]
    index[[place, best]] = index[[best, place]]


def _ious(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """(6,) and (6, M) to (M,) IoU; NaN for two empty boxes."""
    width = np.minimum(box[2], others[2]) - np.maximum(box[0], others[0]) + box.dtype.type(offset)
    height = np.minimum(box[3], others[3]) - np.maximum(box[1], others[1]) + box.dtype.type(offset)
    inter = np.fmax(width, 0) * np.fmax(height, 0)
    ious: np.ndarray = inter / (box[4] + others[4] - inter)
    return ious


def _soft_factor(iou: np.ndarray, threshold: np.floating, sigma: np.floating, method: int) -> np.ndarray:
    """(M,) IoU to the (M,) factor of the score."""
    if method == _GAUSSIAN:
        # Rounded from double precision, as a C library's float function is.
        return np.exp((-(iou * iou) / sigma).astype(np.float64)).astype(iou.dtype)
    lowered = 1 - iou if method == _LINEAR else np.zeros_like(iou)
    return np.where(iou >= threshold, lowered, iou.dtype.type(1))


def _close_gaps(start: int, dropped: np.ndarray) -> np.ndarray:
    """Return the places of the boxes that stay, where mmcv's loop leaves them.

    From ``start`` on, the first gap gets the last box that stays, the second gap the last but one, and so on; boxes
    before ``start`` are decided and stay.
    """
    stays = ~dropped
    stays[:start] = True
    count = int(stays.sum())
    places = np.arange(count)
    gaps = places[~stays[:count]]
    places[gaps] = count + np.flatnonzero(stays[count:])[::-1]
    return places
