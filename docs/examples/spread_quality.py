"""The class score also depends on the spread of the predicted sides."""

from typing import Any

from torch import Tensor, nn

from mmdet_gfl.models.quality.joint import JointQuality
from mmdet_gfl.registry import MODELS


@MODELS.register_module()
class SpreadQuality(JointQuality):
    """Joint quality; a linear function of the standard deviations of l, t, r, b is added to the class logits."""

    def build_modules(self, head: Any) -> dict[str, nn.Module]:
        """``spread_layer``, shared by classes, priors and levels."""
        if not head.box.statistics:
            raise ValueError(
                f'quality=SpreadQuality needs standard deviations, and box={type(head.box).__name__} has none; use '
                f"box=dict(type='mmdet_gfl.GeneralBox')"
            )
        return dict(spread_layer=nn.Linear(4, 1))

    def init_weights(self, head: Any) -> None:
        """Start at 0, as ``JointQuality``."""
        nn.init.zeros_(head.spread_layer.weight)
        nn.init.zeros_(head.spread_layer.bias)

    def class_logits(self, cls_score: Tensor, bbox_pred: Tensor, head: Any) -> Tensor:
        """Class logits of a level, as ``cls_score`` (N, A · C, H, W); ``bbox_pred`` is (N, A · 4k, H, W)."""
        rows = bbox_pred.unflatten(1, (-1, 4 * head.box.channels)).movedim(2, -1)  # (N, A, H, W, 4k)
        std = head.box.side_statistics(rows.flatten(0, 3), head).std.view(*rows.shape[:4], 4)
        term = head.spread_layer(std).movedim(-1, 2)  # (N, A, 1, H, W)
        return (cls_score.unflatten(1, (rows.size(1), -1)) + term).flatten(1, 2)
