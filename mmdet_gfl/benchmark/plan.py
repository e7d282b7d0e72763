"""The interface between the runner and what it trains: a preset of the paper's rows, or an ablation of a config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config

from .mini import Mini


@dataclass(frozen=True)
class Plan(ABC):
    """Configs, settings and scores of the rows that one command line trains.

    Attributes:
        name: ``'paper'``, ``'small'``, ``'mini'`` or ``'ablation'``.
        gpus: Processes per row, one per GPU.
        mini: Size of a mini run; None where the rows train on the data that their configs name.
        options: ``--cfg-options``, applied to every row.
    """

    name: str
    gpus: int = 1
    mini: Mini | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Settings that results must share to stand in one table."""

    @abstractmethod
    def config(self, name: str, seed: int) -> Config:
        """The resolved config of a row."""

    @abstractmethod
    def scores_of(self, entry: dict[str, Any]) -> dict[str, float | None]:
        """Scores by column, the metric first, from the values that an evaluation has logged."""
