"""The interface between the runner and what it trains: a preset of the paper's rows, or an ablation of a config."""

from __future__ import annotations

from typing import Any, Protocol

from mmengine.config import Config

from .mini import Mini


class Plan(Protocol):
    """Configs, settings and scores of the rows that one command line trains."""

    @property
    def name(self) -> str:
        """``'paper'``, ``'small'``, ``'mini'`` or ``'ablation'``."""

    @property
    def gpus(self) -> int:
        """Processes per row, one per GPU."""

    @property
    def mini(self) -> Mini | None:
        """Size of a mini run; None where the rows train on the data that their configs name."""

    @property
    def options(self) -> dict[str, Any]:
        """``--cfg-options``, applied to every row."""

    def sizes(self) -> dict[str, Any]:
        """Settings that results must share to stand in one table."""

    def config(self, name: str, seed: int) -> Config:
        """The resolved config of a row."""

    def scores_of(self, entry: dict[str, Any]) -> dict[str, float | None]:
        """Scores by column, the metric first, from the values that an evaluation has logged."""
