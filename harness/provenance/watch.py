"""The ledger: watches a model's state and attributes every write to the stream positions behind it.

Three independent sources feed it. Tracked tensors report backward passes, in-place writes and escapes.
Hooks report which parameters received a gradient, and every optimizer's step. Version counters, object
identities and fingerprints say which tensors *did* change. A change that no report explains is not
excused: it is an alarm while scoring, and "not shown" after an update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import TensorWeakRef

from harness.provenance.digest import Folding, combine
from harness.provenance.positions import NONE, Positions

Named = list[tuple[str, torch.Tensor]]


@dataclass(slots=True, kw_only=True)
class Update:
    """What one update is known to have done. ``unexplained``: why it is not fully attributed."""

    used: Positions = NONE
    steps: int = 0
    written: int = 0
    unexplained: list[str] = field(default_factory=list)
    escapes: list[dict[str, Any]] = field(default_factory=list)
    harmful: list[str] = field(default_factory=list)


class Ledger:
    """Watches one module, and the optimizer state that `also` yields. ``scored`` counts committed targets."""

    def __init__(self, module: torch.nn.Module, also: Callable[[], Named] = list) -> None:
        self.module, self._also = module, also
        self.scored = 0
        self.fingerprint = ""
        self.alarms: list[str] = []
        self._current: Positions | None = None
        # By weak reference: the address of a gradient that was dropped soon belongs to another one.
        self._grads: dict[int, tuple[TensorWeakRef, Positions]] = {}
        self._update: Update | None = None
        self._attributed: dict[int, torch.Tensor] = {}  # the tensors are kept, so that no id is used twice
        self._seen: dict[str, tuple[int, int]] = {}  # name -> (id, version)
        self._folds: dict[str, int] = {}
        self._past: dict[str, set[int]] = {}  # fingerprints that a tensor had before any token was used
        self._queued: tuple[Named, Folding] | None = None
        self._hooks: list[Any] = []
        self._hooked: set[int] = set()
        self._step_hook = register_optimizer_step_pre_hook(self._before_step)

    # -- what the state is ---------------------------------------------------------------------------

    def state(self) -> Named:
        """Parameters, buffers, tensors kept in plain attributes, and optimizer state, by name."""
        named: Named = [*self.module.named_parameters(), *self.module.named_buffers()]
        for path, child in self.module.named_modules():
            for key, value in vars(child).items():
                if not key.startswith(("_parameters", "_buffers", "_modules")) and "hook" not in key:
                    named += [(f"attr:{path}.{key}{at}", t) for at, t in _tensors(value)]
        return named + list(self._also())

    def watch(self) -> None:
        """Hooks every parameter (also those that adaptation added)."""
        for p in self.module.parameters():
            if id(p) not in self._hooked and p.requires_grad and p.is_leaf:
                self._hooks.append(p.register_post_accumulate_grad_hook(self._accumulated))
                self._hooked.add(id(p))

    def baseline(self) -> str:
        """Takes the present state as untouched by the stream; returns its fingerprint."""
        self.watch()
        self.settle()
        for name, fold in self._folds.items():
            self._past.setdefault(name, set()).add(fold)
        return self.fingerprint

    def queue(self) -> None:
        """Starts fingerprinting the present state behind whatever the device is still doing.

        The next `scoring_done` or `update_ends` takes these fingerprints instead of starting its own, so
        that the host does its part while the device is busy. The caller runs nothing in between.
        """
        named = self.state()
        self._queued = (named, Folding([t for _n, t in named]))

    def settle(self) -> Named:
        """Takes the present (or queued) state as the known one."""
        if self._queued is None:
            self.queue()
        assert self._queued is not None
        (named, folding), self._queued = self._queued, None
        self._folds = {n: f for (n, _t), f in zip(named, folding.values(), strict=True)}
        self._seen = {n: (id(t), t._version) for n, t in named}
        self.fingerprint = combine(self._folds, self._folds.values())
        return named

    # -- scoring -------------------------------------------------------------------------------------

    def scoring_done(self, chunk: int) -> list[str]:
        """Called after a chunk was scored: nothing may have changed. Returns the alarms, if any.

        Buffers and attributes that only exist since this chunk (a cache for a new length) count too:
        the caller warms the model up on every window shape before `baseline`.
        """
        before = self._folds
        self.settle()
        found = []
        for name in sorted(set(before) | set(self._folds)):
            if before.get(name) != self._folds.get(name):
                what = "appeared" if name not in before else "vanished" if name not in self._folds else "changed"
                found.append(f"chunk {chunk}: {name} {what} while targets were scored, outside any declared update")
        self.alarms += found
        return found

    # -- updates -------------------------------------------------------------------------------------

    def update_begins(self) -> None:
        self._update, self._attributed = Update(), {}
        self._tensors = {id(t) for _n, t in self.state()}

    def update_ends(self) -> Update:
        """Compares the state with the reports. Writes that nothing explains are listed, not excused."""
        assert self._update is not None
        update, before, seen = self._update, self._folds, self._seen
        self.watch()
        named = self.settle()
        for name, tensor in named:
            if before.get(name) == self._folds[name] and name in seen and seen[name][0] == id(tensor):
                continue
            changed = before.get(name) != self._folds[name]
            update.written += changed
            if not changed or id(tensor) in self._attributed or name.startswith("opt:"):
                continue  # optimizer state follows the gradients of its own step
            if self._folds[name] in self._past.get(name, ()):
                continue  # a reset to a state from before any token: shown harmless by its fingerprint
            update.unexplained.append(f"{name} was written by no reported step or tracked value")
        if update.used.end > self.scored + 1:
            update.harmful.append(f"used tokens up to {update.used.end - 1}, only {self.scored} targets were scored")
        self._update = None
        return update

    def gradients(self) -> Positions:
        """Positions behind all gradients present now (for exchange between ranks)."""
        return Positions.unite(p for grad, p in self._grads.values() if grad() is not None)

    def adopt(self, parameters: list[torch.nn.Parameter], positions: Positions) -> None:
        """The present gradients of ``parameters`` depend on ``positions``: all ranks' shares were summed."""
        for p in parameters:
            assert p.grad is not None
            self._grads[id(p)] = (TensorWeakRef(p.grad), positions)

    # -- reports from tracked tensors and hooks --------------------------------------------------------

    def escaped(self, how: str, positions: Positions, where: str) -> None:
        """A value left the watched path. Harmless when all behind it had been scored by then."""
        harmless = positions.end <= self.scored + 1
        if self._update is None:
            if not harmless:
                self.alarms.append(f"{how} at {where} let tokens up to {positions.end - 1} escape before being scored")
            return
        if len(self._update.escapes) < 20:
            self._update.escapes.append({"how": how, "where": where, "to": positions.end, "harmless": harmless})
        if not harmless:
            self._update.unexplained.append(f"{how} at {where} let unscored tokens escape")

    def written(self, target: torch.Tensor, positions: Positions) -> None:
        """A tracked value was written into an untracked tensor."""
        if self._update is None:
            if positions.end > self.scored + 1:
                self.alarms.append(f"unscored tokens up to {positions.end - 1} were written outside an update")
            return
        self._attributed[id(target)] = target
        self._update.used |= positions

    def backward(self, positions: Positions, run: Callable[[], Any]) -> Any:
        """Runs a backward pass whose gradients depend on ``positions``."""
        outer, self._current = self._current, positions
        try:
            return run()
        finally:
            self._current = outer

    def _accumulated(self, parameter: torch.Tensor) -> None:
        old = self._grads.get(id(parameter))
        if self._current is None:
            if self._update is not None:
                self._update.unexplained.append("a gradient whose tokens are unknown (its loss was not tracked)")
            return
        assert parameter.grad is not None
        kept = old[1] if old is not None and old[0]() is parameter.grad else NONE
        self._grads[id(parameter)] = (TensorWeakRef(parameter.grad), kept | self._current)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        params = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        if not any(id(p) in self._hooked for p in params):
            return  # somebody else's optimizer
        used: list[Positions] = []
        unknown = False
        for p in params:
            entry = self._grads.get(id(p))
            if entry is None or entry[0]() is not p.grad:
                tracked = getattr(p.grad, "source", None)
                if tracked is None:
                    unknown = True
                    continue
                used.append(tracked)
            else:
                used.append(entry[1])
        together = Positions.unite(set(used))
        if self._update is None:
            self.alarms.append(f"an optimizer stepped outside any declared update (tokens up to {together.end - 1})")
            return
        self._update.steps += 1
        self._update.used |= together
        self._attributed.update({id(p): p for p in params})
        if unknown:
            self._update.unexplained.append("an optimizer used a gradient that no tracked backward pass made")

    def close(self) -> None:
        """Removes all hooks."""
        self._step_hook.remove()
        for hook in self._hooks:
            hook.remove()


def _tensors(value: Any, at: str = "", depth: int = 0) -> list[tuple[str, torch.Tensor]]:
    """Tensors in plain attributes, three containers deep."""
    if isinstance(value, torch.Tensor):
        return [(at, value)]
    if depth > 2:
        return []
    if isinstance(value, dict):
        return [x for k, v in value.items() for x in _tensors(v, f"{at}[{k!r}]", depth + 1)]
    if isinstance(value, list | tuple | set):
        return [x for i, v in enumerate(value) for x in _tensors(v, f"{at}[{i}]", depth + 1)]
    return []
