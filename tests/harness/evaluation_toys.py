"""A toy model and stream for tests of the evaluator: small enough that a whole evaluation takes milliseconds."""

import numpy as np
import torch

from harness.evaluate.run import Evaluation, Options
from harness.evaluate.score import Numerics
from harness.evaluate.stream import Stream

VOCAB = 24


class ToyBlock(torch.nn.Module):
    """Causal mean of the past plus a linear map: attention's shape of dependence at a fraction of the cost."""

    def __init__(self, width):
        super().__init__()
        self.proj = torch.nn.Linear(width, width)

    def forward(self, x):  # (B, T, D)
        mean = x.cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return x + torch.tanh(self.proj(mean))


class ToyModel(torch.nn.Module):
    def __init__(self, width=16, depth=2, seed=0, vocab=VOCAB):
        super().__init__()
        torch.manual_seed(seed)
        self.tok_emb = torch.nn.Embedding(vocab, width)
        self.blocks = torch.nn.ModuleList(ToyBlock(width) for _ in range(depth))
        self.head = torch.nn.Linear(width, vocab)

    def forward_logits(self, inputs, *, last=None):
        x = self.tok_emb(inputs)
        for block in self.blocks:
            x = block(x)
        return self.head(x if last is None else x[:, -last:])


def toy_stream(targets=300, seed=0, vocab=VOCAB, document=40):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, vocab, targets + 1)
    # A copying structure, so that adaptation has something to learn.
    tokens[1::2] = (tokens[:-1:2][: len(tokens[1::2])] * 7 + 3) % (vocab - 2) + 2
    tokens[::document] = 1
    return Stream.of(tokens.astype(np.uint16), vocab=vocab, target_bytes=rng.integers(1, 5, targets).astype(np.uint16))


IDENTITY = {"name": "toy", "sha256": "0" * 64, "bytes": 1, "family": "toy"}


def evaluation(stream=None, model=None, **options):
    numerics = {k: options.pop(k) for k in ("precision", "batch", "deterministic", "compile", "seed") if k in options}
    options = dict(context=16, stride=4, probes=4) | options
    adaptation, ranks = options.pop("adaptation", None), options.pop("ranks", None)
    made = Options(numerics=Numerics(**(dict(batch=8) | numerics)), **options)
    return Evaluation(
        model or ToyModel(), stream or toy_stream(), made, identity=IDENTITY, adaptation=adaptation, ranks=ranks
    )
