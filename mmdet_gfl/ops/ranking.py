"""Order statistics where torch's sorts are the slowest step of decoding: on a CPU numpy's use vector instructions.

Dimension letters: N groups in rows, M values of one, P values with a group each.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The ``k``-th largest of each row, (N,), of ``values`` (N, M) without NaN, M ≥ k; see :meth:`torch.topk`."""
    if values.device.type == 'cpu':
        return torch.from_numpy(np.partition(values.numpy(), -k, axis=1)[:, -k])
    return values.topk(k, sorted=False).values.amin(dim=1)


def argsort_by_group_and_score(groups: Tensor, scores: Tensor) -> Tensor:
    """The order (P,) by ascending ``groups`` (P,) int64, inside a group by descending ``scores`` (P,).

    Which of equal scores of a group come first is open. Groups are fewer than 2³¹, scores not negative and not NaN.
    """
    if scores.dtype is not torch.float32:
        order = scores.argsort(descending=True)
        return order[groups[order].argsort(stable=True)]
    key = (groups << 32) - scores.view(torch.int32)  # bits of floats that are not negative ascend as the floats do
    return torch.from_numpy(np.argsort(key.numpy())) if key.device.type == 'cpu' else key.argsort()
