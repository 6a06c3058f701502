"""Our own evaluator behind the probes' protocol: it is held to what it holds others to."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit.contracts import InputError
from harness.evaluate.run import Evaluation, Options
from harness.evaluate.score import Numerics
from harness.evaluate.stream import Stream
from harness.probe.protocol import Report, Setting
from harness.scorecard.chain import SCORES

IDENTITY = {"name": "probed", "sha256": "0" * 64, "bytes": 0, "family": "probed"}


@dataclass(kw_only=True)
class Strict:
    """The strict evaluator with one adaptation. Several ranks need several processes and are refused here."""

    ttt: str = "none"
    chosen: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float64"

    def __call__(
        self, model: Callable[[], torch.nn.Module], tokens: np.ndarray, target_bytes: np.ndarray, setting: Setting
    ) -> Report:
        if setting.world != 1:
            raise InputError("probes of the strict evaluator run in one process; leave out the comparison of ranks")
        begun = time.perf_counter()
        stream = Stream.of(tokens, vocab=setting.vocab, target_bytes=target_bytes.astype(np.uint16))
        options = Options(
            context=setting.context, stride=setting.stride, ttt=self.ttt, ttt_set={**self.chosen, "chunk": setting.chunk},
            numerics=Numerics(precision=self.precision, batch=setting.batch, seed=setting.seed), probes=0,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            result = Evaluation(model(), stream, options, identity=IDENTITY).run(folder)
            nll = np.load(Path(folder) / SCORES).astype(np.float64)
        return Report(
            nll=nll, nats=result.nats, targets=result.targets, bytes=result.bytes,
            bits_per_byte=result.bits_per_byte, seconds=time.perf_counter() - begun,
        )  # fmt: skip
