"""The laboratory of the cheats: an artifact, a tokenizer, shards and a model so small that a run takes milliseconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.artifact.container import read_artifact, write_artifact
from harness.artifact.grids import float_record
from harness.evaluate.run import Evaluation, Options
from harness.evaluate.score import Numerics
from harness.evaluate.stream import Stream, open_stream
from harness.probe.protocol import Setting
from harness.tokens.shards import write_shard

VOCAB = 260  # the pure-byte vocabulary
WIDTH = 12
TARGETS = 256
LETTERS = 20  # byte values that occur
SMALL = 4 + LETTERS  # a vocabulary of just those: a sum over all its values takes that many runs


class Block(torch.nn.Module):
    """Causal mean of the past and a linear map: attention's shape of dependence at a fraction of its cost."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, T, D) -> (B, T, D)
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None]
        return x + torch.tanh(self.proj(x.cumsum(1) / count))


class LabModel(torch.nn.Module):
    def __init__(self, vocab: int, width: int = WIDTH, depth: int = 2) -> None:
        super().__init__()
        self.tok_emb = torch.nn.Embedding(vocab, width)
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range(depth))
        self.head = torch.nn.Linear(width, vocab)

    def hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.tok_emb(inputs)
        for block in self.blocks:
            x = block(x)
        return x

    def forward_logits(self, inputs: torch.Tensor, *, last: int | None = None) -> torch.Tensor:
        x = self.hidden(inputs)
        return self.head(x if last is None else x[:, -last:])


def build(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> LabModel:
    model = LabModel(config["vocab"])
    model.load_state_dict({k: torch.from_numpy(np.array(v, np.float32)) for k, v in arrays.items()})
    return model.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """Files of one laboratory and what was read from them."""

    folder: Path
    artifact: Path  # vocabulary of the tokenizer
    small: Path  # the same shape with the vocabulary that occurs, for evaluators that are probed
    tokenizer: Path
    data: Path
    stream: Stream

    def model(self, small: bool = False) -> LabModel:
        """A fresh model from an artifact, in float64."""
        opened = read_artifact(self.small if small else self.artifact)
        return build(opened.config, opened.arrays()).double()

    @property
    def setting(self) -> Setting:
        return Setting(context=32, stride=8, chunk=64, vocab=SMALL)

    def evaluation(self, *, adaptation: Any = None, ttt: str = "none", model: torch.nn.Module | None = None,
                   stream: Stream | None = None, **more: Any) -> Evaluation:  # fmt: skip
        """Our own evaluator on this laboratory."""
        chosen = {"chunk": 64, "freeze": 0, "lr": 0.5, "epochs": 1, "last": 0} if ttt in ("sgd", "adamw") else {"chunk": 64}
        options = Options(context=32, stride=8, ttt=ttt, ttt_set=chosen, probes=8,
                          numerics=Numerics(precision="float64", batch=8, deterministic=False), **more)  # fmt: skip
        opened = read_artifact(self.artifact)
        identity = {"name": self.artifact.name, "sha256": opened.digest, "bytes": opened.file_bytes, "family": "lab"}
        return Evaluation(model or self.model(), stream or self.stream, options, identity=identity, adaptation=adaptation)


def make_lab(folder: Path, seed: int = 0) -> Lab:
    """Writes the laboratory's files. Text has a structure that adaptation can learn."""
    folder.mkdir(parents=True, exist_ok=True)
    data, tokenizer = folder / "data", folder / "data" / "tokenizer.json"
    data.mkdir(exist_ok=True)
    config = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    tokenizer.write_text(json.dumps({"tokenizer_type": "pure_byte", "config": config, "vocab_size": VOCAB}))
    rng = np.random.default_rng(seed)
    tokens = 4 + rng.integers(0, LETTERS, TARGETS + 1)
    tokens[1::2] = 4 + (7 * (tokens[:-1:2] - 4) + 3) % LETTERS
    tokens[::80] = 1
    write_shard(data / "fineweb_val_000000.bin", tokens.astype(np.uint16))
    artifacts = folder / "model.ref", folder / "small.ref"
    for path, vocab in zip(artifacts, (VOCAB, SMALL), strict=True):
        torch.manual_seed(seed)
        model = LabModel(vocab)
        with torch.no_grad():
            model.head.weight.mul_(2.0)
            model.head.bias[4 : 4 + LETTERS] += 3.0
        tensors = [float_record(name, t.detach().numpy(), "fp32") for name, t in model.state_dict().items()]
        write_artifact(path, family="lab", config={"vocab": vocab}, tensors=tensors, recipe={"seed": seed})
    return Lab(folder=folder, artifact=artifacts[0], small=artifacts[1], tokenizer=tokenizer, data=data,
               stream=open_stream(data, tokenizer, context=32))  # fmt: skip
