"""Weight averages: EMA, SWA, tight SWA, and their blend.

Which one is exported is the recipe's choice, made before training. It is never chosen by validation
score: that would let validation data select the model (rule D1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reference_model.config import AverageConfig

State = dict[str, Tensor]


class Averages:
    """Keeps float32 averages of a model's parameters, updated once per step."""

    def __init__(self, config: AverageConfig, model: nn.Module) -> None:
        self.config = config
        self.model = model
        self.ema: State | None = self._copy() if config.ema else None
        self.swa: State | None = None
        self.samples = 0

    def _copy(self) -> State:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    @torch.no_grad()
    def update(self, step: int, scale: float) -> None:
        """After optimizer step ``step`` (counted from 1) at learning-rate scale ``scale``.

        EMA: a <- decay * a + (1 - decay) * w every step; with ``ema_warmup`` the decay starts low, so that
        the initial weights do not linger in a run of a few hundred steps. SWA: running mean of a sample every
        ``swa_every`` steps; with ``swa_below`` < 1 only late in the warm-down (tight SWA, PR 827).
        """
        config = self.config
        if self.ema is not None:
            names, weights = zip(*self.model.named_parameters(), strict=True)
            decay = min(config.ema, (1 + step) / (10 + step)) if config.ema_warmup else config.ema
            torch._foreach_lerp_([self.ema[n] for n in names], [w.detach() for w in weights], 1 - decay)
        late = config.swa_below >= 1.0 or scale < config.swa_below
        if config.swa_every and step % config.swa_every == 0 and late:
            self.samples += 1
            if self.swa is None:
                self.swa = self._copy()
            else:
                for name, weight in self.model.named_parameters():
                    self.swa[name].lerp_(weight, 1.0 / self.samples)

    def chosen(self) -> State:
        """The weights to export. SWA that never sampled falls back to EMA, then to the raw weights."""
        use, ema, swa = self.config.use, self.ema, self.swa
        if use == "blend" and ema is not None and swa is not None:
            return {name: ema[name].lerp(swa[name], self.config.blend) for name in ema}
        if use in ("swa", "blend") and swa is not None:
            return swa
        if use in ("ema", "swa", "blend") and ema is not None:
            return ema
        return self._copy()

    def state_dict(self) -> dict[str, Any]:
        return {"ema": self.ema, "swa": self.swa, "samples": self.samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = dict(self.model.named_parameters())
        for kind in ("ema", "swa"):
            saved = state[kind]
            moved = None if saved is None else {n: t.to(own[n].device, copy=True) for n, t in saved.items()}
            setattr(self, kind, moved)
        self.samples = state["samples"]
