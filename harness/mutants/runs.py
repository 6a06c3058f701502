"""Cheats inside our own evaluator: adaptation code and models that try to get around it, and benign ones.

Each case runs the strict evaluator and returns what fired: a claim that is not shown or violated in the record, a
refusal, or what `referee verify` finds in the files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.adapt.grant import Grant, ModelHandle, NotYetScored
from harness.evaluate.run import Result
from harness.evaluate.score import CannotScore
from harness.mutants.lab import SMALL, Lab
from harness.probe.probes import Fired
from harness.provenance.tracked import Tracked
from harness.scorecard.chain import SCORES
from harness.scorecard.verify import verify
from harness.scorecard.writer import file_sha256, read_events

Case = Callable[[Lab, Path], list[Fired]]


class Adapter:
    """Plain SGD on the granted chunk; the cases change ``adapt``."""

    chunk: int | None = 64
    by_document = False

    def begin(self, model: ModelHandle) -> None:
        self.handle = model
        model.module.requires_grad_(True)
        self.optimizer = torch.optim.SGD(model.module.parameters(), lr=0.3)

    def step(self, tokens: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss = self.handle.loss(tokens[None, :-1], tokens[None, 1:]) / (len(tokens) - 1)
        loss.backward()
        self.optimizer.step()

    def adapt(self, grant: Grant) -> None:
        lo, hi = grant.targets
        self.step(grant.tokens(lo, hi + 1))

    def tensors(self) -> list[tuple[str, torch.Tensor]]:
        return []

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def judged(result: Result) -> list[Fired]:
    """Claims that are not as an honest run leaves them, and refusals, from the record and from verifying it."""
    found = []
    for name, claim in result.claims.items():
        if claim["status"] == "violated" or (claim["status"] == "not shown" and name != "P4"):
            found.append(Fired(mechanism=f"{name} {claim['status']}", what=claim["reason"]))
    refused = [e["what"] for e in read_events(result.out) if e["kind"] == "refused"]
    if refused:
        found.append(Fired(mechanism="refused", what=refused[0]))
    return found + checked(result.out)


def checked(folder: Path, lab: Lab | None = None) -> list[Fired]:
    """What ``referee verify`` says against the files alone, or with artifact, tokenizer and shards."""
    inputs = {"artifact": lab.artifact, "tokenizer": lab.tokenizer, "data": lab.data} if lab else {}
    return [Fired(mechanism=f"verify: {p.partition(':')[0]}", what=p) for p in verify(folder, **inputs).problems]


def adapted(adapter: Adapter, lab: Lab, folder: Path, **more: Any) -> list[Fired]:
    return judged(lab.evaluation(adaptation=adapter, **more).run(folder))


# -- adaptation code ------------------------------------------------------------------------------------------


def asks_too_much(lab: Lab, folder: Path) -> list[Fired]:
    """Asks for the next chunk's tokens and hides the refusal."""

    class Greedy(Adapter):
        def adapt(self, grant: Grant) -> None:
            with contextlib.suppress(NotYetScored):
                self.step(grant.tokens(grant.scored, grant.scored + 33))
            super().adapt(grant)

    return adapted(Greedy(), lab, folder)


def closure_over_stream(lab: Lab, folder: Path) -> list[Fired]:
    """Keeps its own copy of the shard and trains on what comes next."""
    secret = torch.from_numpy(lab.stream.tokens.astype(np.int64))

    class Smuggler(Adapter):
        def adapt(self, grant: Grant) -> None:
            hi = grant.targets[1]
            self.step(secret[hi : hi + 33])

    return adapted(Smuggler(), lab, folder)


def raw_write(lab: Lab, folder: Path) -> list[Fired]:
    """Writes next-chunk statistics into a parameter through ``.data``, without any optimizer."""
    secret = torch.from_numpy(lab.stream.tokens.astype(np.int64))

    class Writer(Adapter):
        def adapt(self, grant: Grant) -> None:
            hi = grant.targets[1]
            ahead = torch.bincount(secret[hi + 1 : hi + 65], minlength=260).double()
            head: Any = self.handle.module.head
            head.bias.data += 0.2 * torch.log1p(ahead)

    return adapted(Writer(), lab, folder)


def stale_gradient(lab: Lab, folder: Path) -> list[Fired]:
    """Replaces a gradient by one that was computed outside the watched path."""
    secret = torch.from_numpy(lab.stream.tokens.astype(np.int64))

    class Peeking(Adapter):
        def adapt(self, grant: Grant) -> None:
            hi = grant.targets[1]
            block = secret[hi : hi + 33]
            module: Any = self.handle.module
            if len(block) < 2:
                return
            loss = torch.nn.functional.cross_entropy(module.forward_logits(block[None, :-1])[0], block[1:])
            for p, g in zip(module.parameters(), torch.autograd.grad(loss, list(module.parameters())), strict=True):
                p.grad = g
            self.optimizer.step()

    return adapted(Peeking(), lab, folder)


def module_swap(lab: Lab, folder: Path) -> list[Fired]:
    """Replaces the head by a module that was trained on the stream beforehand."""
    trained = torch.nn.Linear(12, 260, dtype=torch.float64)

    class Swapper(Adapter):
        def adapt(self, grant: Grant) -> None:
            if grant.chunk == 1:
                self.handle.module.head = trained

    return adapted(Swapper(), lab, folder)


# -- models -----------------------------------------------------------------------------------------------------


def _model(lab: Lab) -> Any:
    return lab.model()


def counting_buffer(lab: Lab, folder: Path) -> list[Fired]:
    """A buffer of the model counts the tokens that it is shown while scoring."""
    model = _model(lab)
    model.register_buffer("counts", torch.zeros(260, dtype=torch.float64))
    plain = model.forward_logits

    def forward(inputs: torch.Tensor, *, last: int | None = None) -> torch.Tensor:
        model.counts += torch.bincount(inputs.flatten(), minlength=260)
        return plain(inputs, last=last) + 0.1 * torch.log1p(model.counts)

    model.forward_logits = forward
    return judged(lab.evaluation(model=model).run(folder))


def batch_statistics(lab: Lab, folder: Path) -> list[Fired]:
    """Batch normalisation in training mode: running statistics move while targets are scored."""
    model = _model(lab)
    model.norm = torch.nn.BatchNorm1d(12, dtype=torch.float64)

    def forward(inputs: torch.Tensor, *, last: int | None = None) -> torch.Tensor:
        model.norm.train()
        x = model.norm(model.hidden(inputs).transpose(1, 2)).transpose(1, 2)
        return model.head(x if last is None else x[:, -last:])

    model.forward_logits = forward
    return judged(lab.evaluation(model=model).run(folder))


def learning_forward(lab: Lab, folder: Path) -> list[Fired]:
    """Every forward pass takes an optimizer step on its own inputs before it answers."""
    model = _model(lab)
    plain = model.forward_logits
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def forward(inputs: torch.Tensor, *, last: int | None = None) -> torch.Tensor:
        if inputs.shape[1] > 1:
            with torch.enable_grad():
                model.requires_grad_(True)
                optimizer.zero_grad()
                logits = plain(inputs[:, :-1])
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs[:, 1:].flatten()).backward()
                optimizer.step()
        return plain(inputs, last=last)

    model.forward_logits = forward
    return judged(lab.evaluation(model=model).run(folder))


def bidirectional(lab: Lab, folder: Path) -> list[Fired]:
    """Positions see the mean of the whole window, the future included."""
    model = _model(lab)

    def forward(inputs: torch.Tensor, *, last: int | None = None) -> torch.Tensor:
        x = model.hidden(inputs)
        x = x + model.tok_emb(inputs).mean(1, keepdim=True)
        return model.head(x if last is None else x[:, -last:])

    model.forward_logits = forward
    return judged(lab.evaluation(model=model).run(folder))


def partial_vocabulary(lab: Lab, folder: Path) -> list[Fired]:
    """Answers logits for the tokens that occur only, so that the softmax would be too small."""
    model = _model(lab)
    plain = model.forward_logits
    model.forward_logits = lambda inputs, *, last=None: plain(inputs, last=last)[..., :SMALL]
    try:
        return judged(lab.evaluation(model=model).run(folder))
    except CannotScore as error:
        return [Fired(mechanism="P3 by construction", what=str(error))]


# -- benign runs --------------------------------------------------------------------------------------------------


def reads_scored_values(lab: Lab, folder: Path) -> list[Fired]:
    """Logs scored tokens with .item() and .tolist(): they leave the watched path, harmlessly."""

    class Logger(Adapter):
        def adapt(self, grant: Grant) -> None:
            tokens = grant.tokens(*grant.targets)
            tokens[0].item(), tokens[:4].tolist()
            super().adapt(grant)

    return adapted(Logger(), lab, folder)


def writes_scored_counts(lab: Lab, folder: Path) -> list[Fired]:
    """Adds counts of scored tokens to the head's bias in place, without an optimizer."""

    class Counter(Adapter):
        def adapt(self, grant: Grant) -> None:
            tokens = grant.tokens(*grant.targets)
            counts = torch.bincount(tokens, minlength=260)
            with torch.no_grad():
                head: Any = self.handle.module.head
                head.bias.add_(0.01 * counts)

    return adapted(Counter(), lab, folder)


def returns_to_artifact(lab: Lab, folder: Path) -> list[Fired]:
    """Writes the artifact's own weights back, a write that no step explains."""

    class Resetter(Adapter):
        def begin(self, model: ModelHandle) -> None:
            super().begin(model)
            self.kept = {k: v.detach().clone() for k, v in model.module.state_dict().items()}

        def adapt(self, grant: Grant) -> None:
            if grant.chunk % 2:
                self.handle.module.load_state_dict(self.kept)
            else:
                super().adapt(grant)

    return adapted(Resetter(), lab, folder)


def interrupted(lab: Lab, folder: Path) -> list[Fired]:
    """Killed after two chunks and continued: the same scores as without the interruption."""

    class Stop(Exception):
        pass

    def stop(done: int, _all: int, _bpb: float) -> None:
        if done >= 128:
            raise Stop

    with contextlib.suppress(Stop):
        lab.evaluation(ttt="sgd").run(folder / "cut", progress=stop)
    result = lab.evaluation(ttt="sgd").run(folder / "cut", resume=True)
    whole = lab.evaluation(ttt="sgd").run(folder / "whole")
    same = file_sha256(result.out / SCORES) == file_sha256(whole.out / SCORES)
    return judged(result) + ([] if same else [Fired(mechanism="continuation", what="the continued run differs")])


def tracked_arithmetic(lab: Lab, folder: Path) -> list[Fired]:
    """Slices, stacks, gathers and casts its tokens in every way before training on them."""

    class Gymnast(Adapter):
        def adapt(self, grant: Grant) -> None:
            lo, hi = grant.targets
            tokens = torch.stack([grant.tokens(lo, hi), grant.tokens(lo, hi).flip(0).flip(0)])[0]
            tokens = tokens[torch.arange(len(tokens))].to(torch.int32).long().reshape(2, -1).flatten()
            assert isinstance(tokens, Tracked)
            self.step(tokens)

    return adapted(Gymnast(), lab, folder)
