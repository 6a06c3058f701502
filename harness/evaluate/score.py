"""Scores windows: the model answers logits, the harness takes the log-softmax and picks the target.

The whole vocabulary is normalised here (claim P3 holds by construction), targets are gathered from the
harness's own stream, and which targets were scored is read off the positions that the token tensors carry
themselves, not off the plan. Scores stay on the device until the chunk is done: one synchronisation per chunk.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from audit.contracts import InputError
from harness.adapt.grant import Ranks
from harness.evaluate.plan import Plan
from harness.evaluate.stream import Stream
from harness.provenance.positions import NONE
from harness.provenance.tracked import Tracked, plain, track


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """How numbers are computed. ``precision``: float64, float32, or bf16 (autocast over float32 weights).

    ``attention``: which of torch's kernels a GPU uses: auto (torch's choice), flash or cudnn.
    """

    device: str = "cpu"
    precision: str = "float32"
    compile: bool = False
    attention: str = "auto"
    batch: int = 32
    deterministic: bool = False
    seed: int = 0

    def check(self) -> None:
        if self.precision not in ("float64", "float32", "bf16"):
            raise InputError(f"unknown precision {self.precision!r}; choose float64, float32 or bf16")
        if self.attention not in ("auto", "flash", "cudnn"):
            raise InputError(f"unknown attention kernel {self.attention!r}; choose auto, flash or cudnn")
        if self.batch < 1:
            raise InputError(f"batch {self.batch} must be at least 1 window")

    @property
    def dtype(self) -> torch.dtype:
        """The type of activations."""
        return {"float64": torch.float64, "float32": torch.float32, "bf16": torch.bfloat16}[self.precision]

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        """Moves a model to the device and precision, in evaluation mode. Weights stay float32 under bf16.

        A model with an attribute ``compute_dtype`` casts its activations itself; others run under autocast.
        """
        model = model.to(self.device).eval()
        if self.attention != "auto" and torch.device(self.device).type == "cuda":
            torch.backends.cuda.enable_flash_sdp(self.attention == "flash")
            torch.backends.cuda.enable_cudnn_sdp(self.attention == "cudnn")
        if self.precision == "float64":
            model = model.double()
        if hasattr(model, "compute_dtype"):
            setattr(model, "compute_dtype", self.dtype)  # noqa: B010  (no torch module declares it)
        return model

    def autocast(self, model: torch.nn.Module) -> torch.autocast:
        kind = torch.device(self.device).type
        wanted = self.precision == "bf16" and not hasattr(model, "compute_dtype")
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=wanted)


Probe = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


class CannotScore(InputError):
    """The model's answer is no set of logits over the vocabulary."""


@dataclass(slots=True, kw_only=True)
class ChunkScores:
    """First scores of a chunk: ``nll`` float32/64 (n,) for targets from ``lo`` on; repeats for official plans."""

    lo: int
    nll: np.ndarray
    repeat_nats: float
    repeat_bytes: int
    windows: int
    misplaced: list[str]

    @property
    def hi(self) -> int:
        return self.lo + len(self.nll)


def answer_of(model: torch.nn.Module) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """``(inputs (B, T), n) -> logits (B, n, V)`` of the last n positions, whatever the model's protocol.

    The protocol is ``forward_logits(inputs, *, last=n)``; a model without ``last`` computes all and is cut.
    """
    forward = getattr(model, "forward_logits", None) or model.forward
    try:
        knows_last = "last" in inspect.signature(forward).parameters
    except (TypeError, ValueError):
        knows_last = False
    if knows_last:
        return lambda inputs, n: forward(inputs, last=n)
    return lambda inputs, n: forward(inputs)[:, -n:]


def compiled(model: torch.nn.Module, purpose: str, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``torch.compile`` of ``function``, once per model and purpose however many runs use it.

    Kept on the model itself, so that it lives exactly as long.
    """
    known: dict[str, Any] = model.__dict__.setdefault("_compiled_for_evaluation", {})
    if purpose not in known:
        known[purpose] = torch.compile(function, dynamic=False)
    return known[purpose]


def scoring(
    answer: Callable[[torch.Tensor, int], torch.Tensor], dtype: torch.dtype, vocab: int
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The step that turns (B, T) inputs and (B, n) targets into (B, n) scores in nats, over the whole vocabulary."""

    def score(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = answer(inputs, targets.shape[1]).to(dtype)  # (B, n, V)
        if logits.ndim != 3 or logits.shape[2] < vocab:
            raise CannotScore(f"logits {tuple(logits.shape)} do not cover the vocabulary of {vocab}")
        picked = logits.gather(2, targets.unsqueeze(2)).squeeze(2)
        return torch.logsumexp(logits, 2) - picked

    return score


def common_shape(plan: Plan) -> tuple[int, int]:
    """Inputs and scored targets of the commonest window."""
    kinds, counts = np.unique(np.stack([plan.lengths, plan.score_to - plan.score_from], 1), axis=0, return_counts=True)
    length, scored = kinds[int(counts.argmax())].tolist()
    return length, scored


class Scorer:
    """Scores a plan's windows chunk by chunk on one device (and, of several ranks, this rank's share)."""

    def __init__(
        self, model: torch.nn.Module, stream: Stream, plan: Plan, numerics: Numerics, ranks: Ranks | None = None
    ) -> None:
        self.stream, self.plan, self.numerics, self.ranks = stream, plan, numerics, ranks or Ranks()
        self.device = torch.device(numerics.device)
        self.answer = answer_of(model)
        self.autocast = lambda: numerics.autocast(model)
        self.dtype = torch.float64 if numerics.precision == "float64" else torch.float32
        tokens = torch.from_numpy(stream.tokens.astype(np.int32))
        positions = torch.arange(len(tokens), dtype=torch.int32)
        self.tokens = tokens.to(self.device)
        self._tracked = track(self.tokens, positions, NONE, None)
        self._score = scoring(self.answer, self.dtype, stream.vocab)
        purpose = f"score {self.dtype} {stream.vocab}"
        self._compiled = compiled(model, purpose, self._score) if numerics.compile else None
        self._probe: Probe | None = None
        self._tell: Callable[[int], None] | None = None
        # One shape is worth compiling for, and padding up to: the commonest. Odd ones run as they are, so
        # that a plan with many lengths does not compile many times.
        self._main = common_shape(plan)

    def on_windows(self, tell: Callable[[int], None] | None) -> None:
        """Calls ``tell(target)`` after each batch is queued, with the last target in it."""
        self._tell = tell

    def on_batch(self, probe: Probe | None) -> None:
        """Calls ``probe(inputs, targets, nll)`` after every batch of this chunk, with the real tensors."""
        self._probe = probe

    def again(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(B, T) inputs and (B, n) targets to scores (B, n), by the very path that scores the run; for probes."""
        with torch.no_grad(), self.autocast():
            return self._run(inputs, targets)

    def windows(self, first: int, last: int) -> tuple[Tracked, Tracked]:
        """Tracked inputs (B, T) and targets (B, n) of windows ``first .. last - 1``, which share one shape."""
        p = self.plan
        length, n = int(p.lengths[first]), int(p.score_to[first] - p.score_from[first])
        starts = p.starts[first:last]
        step = int(starts[1] - starts[0]) if len(starts) > 1 else 1
        if step > 0 and (np.diff(starts) == step).all():
            # Evenly spaced windows are one strided view of the stream, and so is their shadow.
            start, rows = int(starts[0]), len(starts)
            inputs = self._tracked.as_strided((rows, length), (step, 1), start)
            targets = self._tracked.as_strided((rows, n), (step, 1), start + length - n + 1)
        else:
            index = torch.from_numpy(starts)[:, None] + torch.arange(length + 1)
            block = self._tracked[index.to(self.device)]
            inputs, targets = block[:, :-1], block[:, length - n + 1 :]
        return inputs.long(), targets.long()  # type: ignore[return-value]

    @torch.no_grad()
    def score_chunk(self, chunk: int, queued: Callable[[], None] | None = None) -> ChunkScores:
        """First scores of all targets of one chunk. ``queued`` is called when all work is queued on the device,
        before the host waits for it. Raises `CannotScore` for malformed or non-finite logits."""
        lo, hi = self.plan.scored(chunk)
        first = torch.zeros(hi - lo, dtype=self.dtype, device=self.device)
        seen = np.zeros(hi - lo, dtype=np.int32)
        repeats = torch.zeros((), dtype=torch.float64, device=self.device)
        repeat_bytes, misplaced, count = 0, [], 0
        fresh_from, score_to = self.plan.fresh_from, self.plan.score_to
        with self.autocast():
            for a, b in self.plan.batches(chunk, self.numerics.batch, self.ranks.rank, self.ranks.world):
                inputs, targets = self.windows(a, b)
                nll = self._run(plain(inputs), plain(targets))  # (B, n)
                where = targets.shadow.numpy() - 1  # type: ignore[union-attr]  # target index = token position - 1
                if (inputs.shadow.numpy()[:, -where.shape[1] :] != where).any():  # type: ignore[union-attr]
                    misplaced.append(f"windows {a}:{b}: inputs and targets are not one token apart")
                count += b - a
                if self._tell is not None:
                    self._tell(int(score_to[b - 1]))
                begin = fresh_from[a:b, None]
                if (begin[:, 0] == where[:, 0]).all():
                    self._commit(first, seen, nll, where, lo, misplaced)
                else:
                    fresh = where >= begin
                    old = torch.from_numpy(~fresh).to(self.device)
                    repeats += nll.double().masked_fill(~old, 0.0).sum()
                    repeat_bytes += int(self.stream.target_bytes[where[~fresh]].sum(dtype=np.int64))
                    for row in np.flatnonzero(fresh.any(1)):
                        keep = fresh[row]
                        self._commit(
                            first, seen, nll[row : row + 1, -int(keep.sum()) :], where[row : row + 1, keep], lo, misplaced
                        )
                if (score_to[a:b] - 1 != where[:, -1]).any():
                    misplaced.append(f"windows {a}:{b}: their last targets are not the plan's")
                if self._probe is not None:
                    self._probe(plain(inputs), plain(targets), nll)
        nll_all, seen = self._all_ranks(first, seen)
        if queued is not None:
            queued()
        if (seen != 1).any():
            misplaced.append(f"chunk {chunk}: {int((seen != 1).sum())} targets were not scored exactly once")
        values = nll_all.cpu().numpy()
        if not np.isfinite(values).all():
            at = lo + int(np.flatnonzero(~np.isfinite(values))[0])
            raise CannotScore(f"the model's logits are not finite for target {at}")
        # log-sum-exp of logits that differ by less than rounding can undercut the picked one.
        return ChunkScores(
            lo=lo, nll=np.maximum(values, 0.0), repeat_nats=float(repeats), repeat_bytes=repeat_bytes,
            windows=count, misplaced=misplaced,
        )  # fmt: skip

    def _run(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows, step = len(inputs), self._score
        if self._compiled is not None and (inputs.shape[1], targets.shape[1]) == self._main:
            step = self._compiled
            if rows < self.numerics.batch:
                pad = self.numerics.batch - rows
                inputs = torch.cat([inputs, inputs[-1:].expand(pad, -1)])
                targets = torch.cat([targets, targets[-1:].expand(pad, -1)])
        try:
            nll = step(inputs, targets)
        except (RuntimeError, IndexError, TypeError, AttributeError) as error:
            raise CannotScore(f"the model cannot answer {tuple(inputs.shape)} inputs: {error}") from error
        if nll.shape != targets.shape:
            raise CannotScore(f"the model's logits do not fit: scores {tuple(nll.shape)}, targets {tuple(targets.shape)}")
        return nll[:rows]

    def _commit(
        self, first: torch.Tensor, seen: np.ndarray, nll: torch.Tensor, where: np.ndarray, lo: int, misplaced: list[str]
    ) -> None:
        """Puts (B, n) scores to their targets. A contiguous run, the normal case, is one copy."""
        flat = where.reshape(-1) - lo
        if flat.min() < 0 or flat.max() >= len(first):
            misplaced.append(f"targets {int(where.min())}:{int(where.max()) + 1} lie outside their chunk")
            return
        if flat[-1] - flat[0] == len(flat) - 1 and (np.diff(flat) == 1).all():
            first[int(flat[0]) : int(flat[-1]) + 1] = nll.reshape(-1)
            seen[int(flat[0]) : int(flat[-1]) + 1] += 1
        else:
            first[torch.from_numpy(flat).to(self.device)] = nll.reshape(-1)
            np.add.at(seen, flat, 1)

    def _all_ranks(self, first: torch.Tensor, seen: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Unites the ranks' shares; adding zeros is exact."""
        if self.ranks.world == 1:
            return first, seen
        import torch.distributed as dist

        counts = torch.from_numpy(seen).to(self.device)
        dist.all_reduce(first)
        dist.all_reduce(counts)
        self.ranks.sequence += 1
        return first, counts.cpu().numpy()

    def warm_up(self) -> None:
        """Runs every common window shape once on random tokens, so that lazy caches exist before the baseline."""
        p = self.plan
        shapes = np.stack([p.lengths, p.score_to - p.score_from], 1)
        kinds, counts = np.unique(shapes, axis=0, return_counts=True)
        order = sorted(range(len(kinds)), key=lambda i: (-counts[i], -kinds[i][0]))[:8]
        longest = int(np.argmax(kinds[:, 0]))
        generator = torch.Generator().manual_seed(self.numerics.seed)
        with torch.no_grad(), self.autocast():
            for i in dict.fromkeys([longest, *order]):
                length, n = int(kinds[i][0]), int(kinds[i][1])
                inputs = torch.randint(0, self.stream.vocab, (1, length), generator=generator).to(self.device)
                self._run(inputs, inputs[:, -n:].contiguous())
