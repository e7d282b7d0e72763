"""Sigmoid focal loss by the calling convention of ``mmcv._ext``, in torch.

Letters: N locations, C classes. A logit x of a location's own class counts as s = x, any other as s = -x, so that
q = sigmoid(-s) is always the error and -log(1 - q) = softplus(-s) its cross entropy; both are finite for every finite
x. With a = alpha for the own class and 1 - alpha for others:

    loss = a q^gamma softplus(-s)
    d loss / d s = -a q^gamma (q + gamma (1 - q) softplus(-s))

Logits are read as float32 if they are narrower. Reference: Lin et al., Focal Loss for Dense Object Detection, eq. 5.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of each logit into ``output``.

    Args:
        logits: (N, C).
        target: (N,) int64, class of the location; anything outside 0..C-1 is background, as in mmcv.
        weight: (C,) weight of a location by its own class, or empty. Background has weight 1 (mmcv reads beyond the
            end of ``weight`` there).
        output: (N, C), overwritten.
        gamma: Exponent of the error.
        alpha: Weight of a location's own class, ``1 - alpha`` that of the others.
    """
    own, signed, scale = _terms(logits, target, weight, alpha)
    output.copy_(scale * torch.sigmoid(-signed).pow(gamma) * softplus(-signed))


def sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of each element of the loss by its logit into ``grad_input``, (N, C).

    The other arguments are those of :func:`sigmoid_focal_loss_forward`.
    """
    own, signed, scale = _terms(logits, target, weight, alpha)
    error = torch.sigmoid(-signed)
    slope = error.pow(gamma) * (error + gamma * torch.sigmoid(signed) * softplus(-signed))
    grad_input.copy_(torch.where(own, -scale, scale) * slope)


def _terms(logits: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (N, C) whether the class is the location's own, the signed logit s, and the factor a times the weight."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    num_classes = logits.size(1)
    own = target.unsqueeze(1) == torch.arange(num_classes, device=target.device)
    scale = torch.where(own, alpha, 1 - alpha).to(logits.dtype)
    if weight.numel():
        known = (target >= 0) & (target < num_classes)
        by_class = weight.to(logits.dtype)[target.clamp(0, num_classes - 1)]
        scale = scale * torch.where(known, by_class, 1.0).unsqueeze(1)
    return own, torch.where(own, logits, -logits), scale
