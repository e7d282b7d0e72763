"""The post-processing in docs/export.md, run as it stands there."""

import re
from pathlib import Path

import numpy as np
import torch
from cases import build, features, gfl_config

from mmdet_gfl.export.decoding import decode_outputs

PAGE = (Path(__file__).parents[2] / 'docs' / 'export.md').read_text(encoding='utf-8')


@torch.no_grad()
def test_postprocessing_of_raw_outputs():
    (code,) = re.findall(r'^```python\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)
    names = {}
    exec(code, names)
    head = build(gfl_config()).eval()
    outs = head(features((160, 224), 1))
    outputs = {
        f'{kind}_{i}': level.numpy() for kind, levels in zip(('cls', 'reg'), outs) for i, level in enumerate(levels)
    }
    boxes, scores = names['postprocess'](outputs, [8, 16, 32, 64, 128], 160, 224)
    wanted = decode_outputs(head, outs, torch.tensor([[160.0, 224]]))
    np.testing.assert_allclose(boxes, wanted.boxes[0], atol=1e-3)
    np.testing.assert_allclose(scores, wanted.scores[0], atol=1e-6)
