"""Builds what a run needs from a recipe: model on its device, kernels, compilation, data, validation."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import reference_model
from audit.contracts import InputError
from harness.tokens.bytes import ByteTable
from harness.tokens.folder import find_tokenizer
from harness.tokens.shards import ShardSet
from harness.tokens.tokenizer import load_tokenizer
from reference_model import qat
from reference_model.config import Recipe
from reference_model.data import Loader, Sampler
from reference_model.model import Golf
from reference_model.model.golf import visits
from reference_model.optim import Optimizers
from reference_model.schedule import shard_alpha
from reference_model.train.ranks import Ranks
from reference_model.train.validate import Validation

#: Dense bfloat16 peak in FLOP/s by a word of the device's name, from the vendor's data sheets.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}


def peak_flops(device: torch.device) -> float | None:
    """What utilisation is measured against; None where nobody states a peak (CPUs)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((value for word, value in PEAK.items() if word in name), None)


def source_digest() -> str:
    """sha256 over the package's own Python files and recipes: which code produced a log."""
    root = Path(reference_model.__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.toml")]):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def seed_everything(seed: int, deterministic: bool) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def make_model(recipe: Recipe, device: torch.device) -> Golf:
    model = Golf(recipe.model)  # on the CPU: the same initial weights on every kind of device
    model.to(device)
    model.compute_dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model.use_kernels(mlp=recipe.run.mlp, attention=recipe.run.attention)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    return model


def compile_model(model: Golf, how: str) -> Callable[..., torch.Tensor]:
    """The loss function to train with. "block" compiles each block for itself: seconds, not minutes."""
    if how == "off":
        return model
    import torch._dynamo.config as dynamo

    # One code object serves all blocks; each kind of block and of precision is a variant of its own.
    dynamo.recompile_limit = max(64, dynamo.recompile_limit)
    if how == "model":
        return torch.compile(model, dynamic=False)
    for block in model.each_block():
        block.compile(dynamic=False)
        if block.lanes is not None:
            block.two_lane = torch.compile(block.two_lane, dynamic=False)  # type: ignore[method-assign]
    model.embedded = torch.compile(model.embedded, dynamic=False)  # type: ignore[method-assign]
    model.loss = torch.compile(model.loss, dynamic=False)  # type: ignore[method-assign]
    return model


@dataclass(slots=True)
class Data:
    shards: ShardSet
    loader: Loader
    validation: Validation | None


def open_data(recipe: Recipe, folder: Path, ranks: Ranks) -> Data:
    """Training loader and validation prefix of a shard folder. Raises InputError in one line."""
    vocab = recipe.model.vocab
    shards = ShardSet.open(folder, "train", vocab_size=vocab)
    try:
        stream = ShardSet.open(folder, "val", vocab_size=vocab)
        table = ByteTable.from_tokenizer(load_tokenizer(find_tokenizer(folder)), vocab)
        limit = recipe.run.validate_tokens
        head = stream.slice(0, min(stream.total, max(limit, recipe.data.context) + 1))
        validation = Validation.of(head, table, recipe.data.context, limit) if limit else None
    except InputError as error:
        if recipe.run.validate_tokens:
            raise InputError(f"{error} (or train without validation: --set validate_tokens=0)") from None
        validation = None
    windows = recipe.data.batch_tokens // recipe.data.context
    if windows % ranks.world:
        raise InputError(
            f"{windows} sequences a step do not divide over {ranks.world} ranks; change batch_tokens"
        )
    steps = recipe.schedule.steps
    sampler = Sampler(
        [len(a) for a in shards.arrays],
        recipe.data.context,
        windows,
        recipe.run.seed,
        # By batch number, not by the clock: the same batches on a slow machine and a fast one.
        lambda batch: shard_alpha(recipe.data, min(1.0, batch / steps)),
    )
    loader = Loader(shards.arrays, sampler, rank=ranks.rank, world=ranks.world, ahead=recipe.data.prefetch)
    return Data(shards=shards, loader=loader, validation=validation)


def micro_rows(recipe: Recipe, rows: int) -> int:
    """Sequences per forward pass: a divisor of this rank's rows."""
    wanted = max(1, recipe.data.micro_tokens // recipe.data.context) if recipe.data.micro_tokens else rows
    chosen = min(rows, wanted)
    while rows % chosen:
        chosen -= 1
    return chosen


def warm_up(
    loss_of: Callable[..., torch.Tensor], model: Golf, optimizers: Optimizers, recipe: Recipe, rows: int
) -> None:
    """Compiles every variant that training will run, on meaningless tokens, before the clock starts."""
    device = model.embed.weight.device
    if recipe.run.compile == "off" and device.type != "cuda":
        return
    tokens = torch.zeros(rows, recipe.data.context, dtype=torch.int64, device=device)
    orders = [model.visits]
    if recipe.model.repeat_layers and not recipe.model.repeat_active:
        orders.append(visits(recipe.model, True))
    first = model.visits
    for model.visits in reversed(orders):
        for bits in sorted({0, recipe.compress.qat_bits}, reverse=True):
            qat.enable(model, bits)
            loss_of(tokens, tokens).backward()
    model.visits = first
    optimizers.muon.warm_up()
    if tokens.is_cuda:
        torch.cuda.synchronize()
