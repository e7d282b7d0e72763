"""Pictures of what a model predicts: matplotlib figures, without a window and without pyplot's state."""

from .distributions import draw
from .scatter import draw_scatter

__all__ = ['draw', 'draw_scatter']
