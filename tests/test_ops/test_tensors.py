"""Small operations on tensors, by hand."""

import pytest
import torch

from mmdet_gfl.ops import constant_like, floor_divmod, upcast


@pytest.mark.parametrize(
    'dtype, expected',
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_upcast_to_at_least_float32(dtype, expected):
    tensor = torch.tensor([1.5, -2.0], dtype=dtype)
    assert upcast(tensor).dtype == expected and upcast(tensor).tolist() == [1.5, -2.0]
    assert (upcast(tensor) is tensor) == (dtype == expected)


def test_constant_like_takes_the_dtype_of_its_model_or_another():
    like = torch.zeros(5, dtype=torch.float64)
    assert constant_like(like, [1, 2.5]).dtype == torch.float64 and constant_like(like, [1, 2.5]).tolist() == [1, 2.5]
    table = constant_like(like, [(1, 2), (3, 4)], torch.long)
    assert table.dtype == torch.int64 and table.tolist() == [[1, 2], [3, 4]]
    assert constant_like(like.to('meta'), [1]).is_meta


def test_floor_divmod():
    quotient, remainder = floor_divmod(torch.tensor([0, 6, 7, 13]), 7)
    assert quotient.tolist() == [0, 0, 1, 1] and remainder.tolist() == [0, 6, 0, 6]
    quotient, remainder = floor_divmod(torch.tensor([9, 9, 9]), torch.tensor([2, 3, 10]))
    assert quotient.tolist() == [4, 3, 0] and remainder.tolist() == [1, 0, 9]
    assert quotient.dtype == remainder.dtype == torch.int64
