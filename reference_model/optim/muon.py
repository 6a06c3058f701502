"""Parallel Muon: matrices of one shape form a bank, and a step runs in three overlapped phases.

1. ``launch``: every bank's gradients start an asynchronous reduce-scatter, biggest bank first.
2. Meanwhile the caller all-reduces and steps the small replicated parameters (``Optimizers.step``).
3. ``finish``: per bank, wait for its shard, update momentum, orthogonalize the shard's matrices, start
   an asynchronous all-gather of the result; the previous bank is applied while this one travels.

No DistributedDataParallel is involved. On one rank the same code runs without communication, and since
every matrix is orthogonalized on its own, the number of ranks changes nothing but the order in which
gradients are summed. From PR 1120 by way of PR 1171 and PR 726.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reference_model.config import OptimConfig
from reference_model.optim.orthogonal import normalize_rows, orthogonalize


@dataclass(eq=False)
class Bank:
    """Matrices of one shape: padded to a multiple of the ranks, (N, R, C) with N = ranks * shard."""

    names: list[str]
    params: list[nn.Parameter]
    values: Tensor  # (N, R, C); the parameters are views of it
    grads: Tensor  # (N, R, C); their gradients likewise
    momentum: Tensor  # (shard, R, C): this rank's matrices only
    shard: Tensor  # (shard, R, C): the averaged gradients of this rank's matrices
    update: Tensor  # (N, R, C)
    scale: float  # sqrt(max(1, R / C)): keeps the update's size per output independent of the shape
    pending: list[Any] = field(default_factory=list)


class ParallelMuon:
    """Muon over banks. Momentum is sharded; parameters stay identical on all ranks."""

    def __init__(self, matrices: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> None:
        self.config = config
        self.distributed = dist.is_available() and dist.is_initialized()
        self.world = dist.get_world_size() if self.distributed else 1
        self.rank = dist.get_rank() if self.distributed else 0
        self.orthogonalize: Callable[..., Tensor] = orthogonalize
        self.factor: Tensor | float = 1.0  # on this step's gradients: global-norm clipping
        groups: dict[tuple[int, int], list[tuple[str, nn.Parameter]]] = defaultdict(list)
        for name, param in matrices:
            groups[param.shape[0], param.shape[1]].append((name, param))
        self.banks = [self._bank(shape, members) for shape, members in groups.items()]
        # Biggest first: the longest transfer gets the most work to hide behind. Names break ties, so
        # that every rank issues its collectives in the same order.
        self.banks.sort(key=lambda bank: (-bank.values.numel(), bank.names[0]))

    def _bank(self, shape: tuple[int, int], members: list[tuple[str, nn.Parameter]]) -> Bank:
        shard = -(-len(members) // self.world)
        first = members[0][1]
        make = lambda n, dtype: torch.zeros(n, *shape, dtype=dtype, device=first.device)  # noqa: E731
        values, grads = make(shard * self.world, first.dtype), make(shard * self.world, first.dtype)
        for i, (_, param) in enumerate(members):
            values[i].copy_(param.data)
            param.data = values[i]
            param.grad = grads[i]
        travel = torch.bfloat16 if first.is_cuda else torch.float32
        return Bank(
            names=[name for name, _ in members],
            params=[param for _, param in members],
            values=values,
            grads=grads,
            momentum=make(shard, torch.float32),
            shard=make(shard, travel if self.distributed else first.dtype),
            update=make(shard * self.world, travel),
            scale=max(1.0, shape[0] / shape[1]) ** 0.5,
        )

    def zero_grad(self) -> None:
        for bank in self.banks:
            bank.grads.zero_()
            for i, param in enumerate(bank.params):
                param.grad = bank.grads[i]

    @torch.no_grad()
    def warm_up(self) -> None:
        """Runs the orthogonalizer once per bank, so that no library starts up inside the first step."""
        for bank in self.banks:
            self.orthogonalize(bank.momentum, self.config.orthogonalizer, self.config.orthogonal_steps)

    @torch.no_grad()
    def launch(self) -> None:
        """Phase 1: start averaging every bank's gradients, each rank receiving its shard."""
        self.factor = 1.0
        for bank in self.banks:
            if not self.distributed:
                bank.shard = bank.grads
                continue
            source = bank.grads.to(bank.shard.dtype)
            work = dist.reduce_scatter_tensor(bank.shard, source, op=dist.ReduceOp.SUM, async_op=True)
            bank.pending = [work, source]  # the source must live until the transfer ends

    @staticmethod
    def _arrived(bank: Bank) -> Tensor:
        """This rank's shard of summed gradients, once its transfer is over."""
        if bank.pending:
            bank.pending[0].wait()
            bank.pending.clear()
        return bank.shard

    @torch.no_grad()
    def square_norm(self) -> Tensor:
        """Squared norm of the averaged gradients of all matrices, the same on every rank."""
        parts = torch.stack(torch._foreach_norm([self._arrived(bank).float() for bank in self.banks]))
        total = (parts / self.world).square().sum()
        if self.distributed:
            dist.all_reduce(total)
        return total

    @torch.no_grad()
    def finish(self, lr: float, momentum: float) -> None:
        """Phase 3: momentum, orthogonalization and all-gather, one bank behind another."""
        previous: tuple[Bank, Any] | None = None
        for bank in self.banks:
            mine = self._direction(bank, momentum)
            if self.distributed:
                work = dist.all_gather_into_tensor(bank.update, mine.to(bank.update.dtype), async_op=True)
            else:
                bank.update, work = mine, None
            if previous is not None:
                self._apply(*previous, lr)
            previous = (bank, work)
        if previous is not None:
            self._apply(*previous, lr)

    def _direction(self, bank: Bank, momentum: float) -> Tensor:
        grad = self._arrived(bank).float() * (self.factor / self.world)
        bank.momentum.mul_(momentum).add_(grad)
        moved = grad.add(bank.momentum, alpha=momentum) if self.config.nesterov else bank.momentum
        if self.config.row_normalize:
            moved = normalize_rows(moved)
        return self.orthogonalize(moved, self.config.orthogonalizer, self.config.orthogonal_steps)

    def _apply(self, bank: Bank, work: Any, lr: float) -> None:
        if work is not None:
            work.wait()
        bank.values.mul_(1.0 - lr * self.config.weight_decay)
        bank.values.add_(bank.update.to(bank.values.dtype), alpha=-lr * bank.scale)

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """Momentum by parameter name, gathered from all ranks: independent of their number."""
        state: dict[str, Tensor] = {}
        for bank in self.banks:
            whole = bank.momentum
            if self.distributed:
                whole = torch.empty_like(bank.values, dtype=torch.float32)
                dist.all_gather_into_tensor(whole, bank.momentum)
            state |= {name: whole[i].clone() for i, name in enumerate(bank.names)}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for bank in self.banks:
            first = self.rank * bank.momentum.size(0)
            for i, name in enumerate(bank.names[first : first + bank.momentum.size(0)]):
                bank.momentum[i].copy_(state[name])
