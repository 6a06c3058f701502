"""Hessians of the layer-wise squared error: H = sum over inputs of x x^T, one per matrix.

The error that a layer's output suffers from weights Q instead of W is tr((W - Q) H (W - Q)^T). Matrices that
read the same input (queries, keys and values) share one H. The tied output head reads the normalised last
hidden state, so the embedding has a Hessian too.

``rows`` adds what the *loss* makes of an output error: the mean squared gradient of each output, a diagonal
Fisher estimate. With it ``sum over rows of rows[r] * (w_r - q_r) H (w_r - q_r)^T`` is (twice) the expected loss in
nats per token, the same unit for every tensor, and the rate of one tensor can be weighed against that of another.
A lookup table has the same form with the roles exchanged: H is the second moment of the gradient at its output,
and a row's weight is how often the row is read. A table that is also the output head has both terms; since
``rows`` of a head follow the token frequencies too, they are joined into one H with the frequencies as weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from audit.contracts import InputError
from harness.provenance.tracked import positions_of
from reference_model.quantize.calibration import Source

#: Tokens of one pass, whatever batches a source yields: sums do not mind, memory does. A backward pass keeps the
#: activations of all layers, in float32.
FORWARD_TOKENS = 32_768
BACKWARD_TOKENS = 8_192


@dataclass(slots=True, kw_only=True)
class Hessians:
    """``inputs``: name -> (columns, columns) float32, mean of x x^T; ``rows``: name -> (rows,) mean squared gradients.

    ``samples``: how many input vectors each H was accumulated from.
    """

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    rows: dict[str, torch.Tensor] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)


class _Accumulator:
    """Sums x x^T per module; inputs that are the same memory in one forward pass are multiplied once."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self._seen: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
        self._keep: list[torch.Tensor] = []

    def add(self, name: str, x: torch.Tensor) -> None:
        key = (x.data_ptr(), tuple(x.shape))
        gram = self._seen.get(key)
        if gram is None:
            flat = x.detach().reshape(-1, x.shape[-1]).float()
            gram = flat.T @ flat
            self._seen[key] = gram
            # Held until the pass ends, so that its memory is not given to another tensor meanwhile.
            self._keep.append(x)
        self.sums[name] = self.sums[name] + gram if name in self.sums else gram.clone()
        self.counts[name] = self.counts.get(name, 0) + x.numel() // x.shape[-1]

    def end_of_pass(self) -> None:
        self._seen.clear()
        self._keep.clear()


def _quantizable(model: Any) -> dict[str, Any]:
    if not hasattr(model, "quantizable"):
        raise InputError("this model does not say which of its layers can be quantized (no quantizable())")
    return model.quantizable()


@contextmanager
def _watch(model: Any, accumulator: _Accumulator) -> Iterator[None]:
    handles = []
    for name, module in _quantizable(model).items():
        handles.append(
            module.register_forward_pre_hook(lambda _module, args, name=name: accumulator.add(name, args[0]))
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tied_name(model: Any) -> str | None:
    """State name of an embedding that is also the output head, where the model says so."""
    return "embed.weight" if getattr(model, "head", 0) is None and hasattr(model, "body") else None


def _tables(model: Any) -> dict[str, torch.nn.Embedding]:
    """Lookup tables by the state name of their weight."""
    return {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, torch.nn.Embedding)}


def _run(model: Any, ids: torch.Tensor, accumulator: _Accumulator, tied: str | None) -> torch.Tensor:
    if tied is None:
        return model.forward_logits(ids)
    hidden = model.body(ids)
    accumulator.add(tied, hidden)
    return model.logits(hidden)


def refuse_stream(ids: torch.Tensor) -> None:
    """Raises ``InputError`` for tokens that carry positions of an evaluation stream (``harness.provenance``)."""
    if positions_of(ids).intervals:
        raise InputError("calibration on tokens of the evaluation stream is forbidden; use training tokens")


def collect(model: Any, source: Source, *, fisher: bool = False) -> Hessians:
    """Runs the model over a calibration source and returns the Hessians.

    With ``fisher`` each batch also runs backward, with targets drawn from the model's own distribution (the
    true Fisher needs no data labels): row weights, and Hessians of lookup tables. Raises ``InputError`` for
    tokens that the harness knows to be of the evaluation stream, ``TypeError`` for anything but a source.
    """
    if not isinstance(source, Source):
        raise TypeError(f"Hessians are collected from a calibration source, not from {type(source).__name__}")
    return _collect(model, source.batches(), fisher)


def _collect(model: Any, batches: Iterable[torch.Tensor], fisher: bool = False) -> Hessians:
    device = next(model.parameters()).device
    accumulator = _Accumulator()
    tied = _tied_name(model)
    moments = _Moments()
    positions = 0
    generator = torch.Generator(device=device).manual_seed(0)
    training = model.training
    model.eval()
    try:
        for ids in _passes(batches, BACKWARD_TOKENS if fisher else FORWARD_TOKENS):
            ids = ids.to(device)
            positions += ids.numel()
            # Watched for this pass alone: a source may run the same model itself while it writes the next batch.
            with _watch(model, accumulator):
                if fisher:
                    _backward(model, ids, accumulator, tied, moments, generator)
                else:
                    with torch.no_grad():
                        _run(model, ids, accumulator, tied)
            accumulator.end_of_pass()
    finally:
        model.train(training)
    if not positions:
        raise InputError("the calibration source yielded no tokens")
    found = Hessians(samples=dict(accumulator.counts))
    found.inputs = {name: total / accumulator.counts[name] for name, total in accumulator.sums.items()}
    found.rows = {name: total / positions for name, total in moments.squares.items()}
    for name, gram in moments.grams.items():
        reads = moments.reads[name]
        # Half a count more: a row that the calibration text never read is rare, not impossible.
        often = (reads + 0.5) / (reads.sum() + 0.5 * reads.numel())
        joined = gram / positions
        if name == tied:
            joined = joined + found.inputs[name] * found.rows[name].sum()
        found.inputs[name], found.rows[name] = joined, often
        found.samples[name] = positions
    return found


def _passes(batches: Iterable[torch.Tensor], tokens: int) -> Iterator[torch.Tensor]:
    """The batches (B, T) in parts of at most ``tokens`` tokens, one sequence at least."""
    for ids in batches:
        refuse_stream(ids)
        yield from ids.split(max(1, tokens // max(1, ids.shape[-1])))


class _Moments:
    """What backward passes leave: squared gradients per output, gradient moments and reads of lookup tables."""

    def __init__(self) -> None:
        self.squares: dict[str, torch.Tensor] = {}
        self.grams: dict[str, torch.Tensor] = {}
        self.reads: dict[str, torch.Tensor] = {}

    def output(self, name: str, value: torch.Tensor) -> None:
        def keep(gradient: torch.Tensor) -> None:
            total = gradient.detach().float().reshape(-1, gradient.shape[-1]).square().sum(dim=0)
            self.squares[name] = self.squares[name] + total if name in self.squares else total

        value.register_hook(keep)

    def table(self, name: str, rows: int, ids: torch.Tensor, value: torch.Tensor) -> None:
        counts = torch.bincount(ids.reshape(-1), minlength=rows).float()
        self.reads[name] = self.reads[name] + counts if name in self.reads else counts

        def keep(gradient: torch.Tensor) -> None:
            flat = gradient.detach().float().reshape(-1, gradient.shape[-1])
            gram = flat.T @ flat
            self.grams[name] = self.grams[name] + gram if name in self.grams else gram

        value.register_hook(keep)


def _backward(
    model: Any,
    ids: torch.Tensor,
    accumulator: _Accumulator,
    tied: str | None,
    moments: _Moments,
    generator: torch.Generator,
) -> None:
    handles = [
        module.register_forward_hook(lambda _module, _args, output, name=name: moments.output(name, output))
        for name, module in _quantizable(model).items()
    ]
    handles += [
        module.register_forward_hook(
            lambda module, args, output, name=name: moments.table(
                name, module.num_embeddings, args[0], output
            )
        )
        for name, module in _tables(model).items()
    ]
    # Frozen weights would leave outputs without a gradient graph.
    frozen = [p for p in model.parameters() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            logits = _run(model, ids, accumulator, tied)
            if tied is not None:
                moments.output(tied, logits)
            odds = torch.softmax(logits.detach().float(), dim=-1).reshape(-1, logits.shape[-1])
            drawn = torch.multinomial(odds, 1, generator=generator)[:, 0]
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]).float(), drawn, reduction="sum"
            )
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in model.parameters():
            parameter.grad = None
        for parameter in frozen:
            parameter.requires_grad_(False)


class OnlineHessians:
    """Hessians accumulated while training goes on: a separate forward pass every ``every`` steps.

    Older steps fade with ``decay`` per accumulation, since the model that is quantized is the last one. The
    trainer calls ``step(model, step, ids)`` with the training batch it has just used; nothing else is read.
    """

    def __init__(self, every: int = 25, decay: float = 0.95) -> None:
        if every < 1 or not 0 < decay <= 1:
            raise InputError("online Hessians need every >= 1 and a decay in (0, 1]")
        self.every, self.decay = every, decay
        self._sums: dict[str, torch.Tensor] = {}
        self._weight = 0.0
        self._samples: dict[str, int] = {}

    def step(self, model: Any, step: int, ids: torch.Tensor) -> bool:
        """Accumulates when it is time; says whether it did."""
        if step % self.every:
            return False
        now = _collect(model, [ids])
        self._weight = self._weight * self.decay + 1.0
        for name, gram in now.inputs.items():
            self._sums[name] = self._sums[name] * self.decay + gram if name in self._sums else gram
            self._samples[name] = self._samples.get(name, 0) + now.samples[name]
        return True

    @property
    def ready(self) -> bool:
        """Whether anything was accumulated yet."""
        return self._weight > 0

    def resume_state(self) -> dict[str, Any]:
        """What an interrupted run needs to go on accumulating bit for bit."""
        sums = {name: total.clone() for name, total in self._sums.items()}
        return {"sums": sums, "weight": self._weight, "samples": dict(self._samples)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from ``resume_state``."""
        self._sums, self._weight, self._samples = dict(state["sums"]), state["weight"], dict(state["samples"])

    def hessians(self) -> Hessians:
        if not self._weight:
            raise InputError("no online Hessian was accumulated; train for more steps")
        return Hessians(
            inputs={name: total / self._weight for name, total in self._sums.items()},
            samples=dict(self._samples),
        )

    def state(self) -> dict[str, Any]:
        """Plain tensors, to travel in a checkpoint as ``hessians``."""
        return {"inputs": self.hessians().inputs, "samples": dict(self._samples)}


def from_state(state: dict[str, Any]) -> Hessians:
    """Hessians that ``OnlineHessians.state`` saved."""
    return Hessians(inputs=dict(state["inputs"]), samples=dict(state.get("samples", {})))
