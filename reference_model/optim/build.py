"""Which parameter goes to which optimizer, and one step of all of them in the right order."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from reference_model.config import OptimConfig
from reference_model.optim.muon import ParallelMuon


def split(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """matrix: 2-D weights inside blocks (Muon). embed: tables and an untied head. scalar: all the rest.

    A router is 2-D and inside a block, but no gradient reaches it; AdamW leaves it where it is.
    """
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {"matrix": [], "embed": [], "scalar": []}
    for name, param in model.named_parameters():
        if name.startswith("blocks.") and name.endswith(".weight") and ".router." not in name:
            groups["matrix"].append((name, param))
        elif "embed" in name or name.startswith("head."):
            groups["embed"].append((name, param))
        else:
            groups["scalar"].append((name, param))
    return groups


class Optimizers:
    """Parallel Muon and AdamW behind one ``step``."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.config = config
        groups = split(model)
        self.muon = ParallelMuon(groups["matrix"], config)
        self.names = [name for kind in ("embed", "scalar") for name, _ in groups[kind]]
        self.small = [param for kind in ("embed", "scalar") for _, param in groups[kind]]
        rates = {"embed": config.embed_lr, "scalar": config.scalar_lr}
        decay = {"embed": config.adam_decay, "scalar": config.scalar_decay}
        self.adam = torch.optim.AdamW(
            [
                {
                    "params": [p for _, p in groups[kind]],
                    "lr": rate,
                    "base": rate,
                    "weight_decay": decay[kind],
                }
                for kind, rate in rates.items()
                if groups[kind]
            ],
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=self.small[0].is_cuda,
        )

    def zero_grad(self) -> None:
        self.muon.zero_grad()
        self.adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, scale: float, momentum: float) -> None:
        """One update with every learning rate times ``scale``: the three phases of Parallel Muon."""
        muon = self.muon
        muon.launch()
        if muon.world > 1:
            self._average_small()
        if self.config.clip:
            self._clip()
        for group in self.adam.param_groups:
            group["lr"] = group["base"] * scale
        self.adam.step()
        muon.finish(self.config.matrix_lr * scale, momentum)

    def _average_small(self) -> None:
        """One all-reduce for all replicated gradients: many tiny ones would cost latency each."""
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.small]
        flat = torch.cat([g.flatten().float() for g in grads])
        dist.all_reduce(flat)
        flat /= self.muon.world
        for param, part in zip(self.small, flat.split([g.numel() for g in grads]), strict=True):
            param.grad = part.view_as(param).to(param.dtype)

    def _clip(self) -> None:
        """Scales all gradients so that their global norm, of the average over ranks, is at most ``clip``.

        The norm needs every shard, so with clipping AdamW waits for the reduce-scatter too; the overlap
        of orthogonalization and all-gather stays. (PR 726 clips each rank's own gradients instead.)
        """
        grads = [p.grad for p in self.small if p.grad is not None]
        norm = (self.muon.square_norm() + torch.stack(torch._foreach_norm(grads)).square().sum()).sqrt()
        self.muon.factor = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads, self.muon.factor)

    def state_dict(self) -> dict[str, Any]:
        by_name = {}
        for name, param in zip(self.names, self.small, strict=True):
            by_name[name] = {k: v.clone() for k, v in self.adam.state.get(param, {}).items()}
        return {"muon": self.muon.state_dict(), "adam": by_name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        for name, param in zip(self.names, self.small, strict=True):
            saved = state["adam"][name]
            # AdamW keeps its step counter on the CPU unless fused; the moments live with the parameter.
            self.adam.state[param] = {
                k: v.clone().to(param.device if k != "step" or param.is_cuda else "cpu")
                for k, v in saved.items()
            }
