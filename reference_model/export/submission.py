"""A parameter-golf submission: trains, quantizes, packs and evaluates one recipe.

    SEED=1337 torchrun --standalone --nproc_per_node=8 train_gpt.py

Training sees the training shards only. The artifact is written, read back, and the model that is scored is
the one that was read. Every validation token is scored once, in order, before any update may use it.
"""

from __future__ import annotations

import glob
import io
import json
import lzma
import math
import os
import random
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.averaging import Averages
from reference_model.config import (
    AverageConfig,
    CompressConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
    load,
)
from reference_model.data.loader import Loader
from reference_model.data.prefetch import on_device
from reference_model.data.sampler import Sampler
from reference_model.model.golf import Golf
from reference_model.optim.build import Optimizers
from reference_model.prune import prune_smallest
from reference_model.qat import enable, row_scales
from reference_model.quantize.gptq import factorise, nearest, sweep
from reference_model.schedule import lr_scale, momentum, progress, shard_alpha

RECIPE: dict = load("default").as_dict()  # the exporter puts its recipe here


class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model")
    train_files = os.path.join(data_path, "fineweb_train_*.bin")
    val_files = os.path.join(data_path, "fineweb_val_*.bin")
    seed = int(os.environ.get("SEED", RECIPE["run"]["seed"]))
    iterations = int(os.environ.get("ITERATIONS", RECIPE["schedule"]["steps"]))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", RECIPE["schedule"]["seconds"]))
    train_log_every = int(os.environ.get("TRAIN_LOG_EVERY", 200))
    vocab_size = RECIPE["model"]["vocab"]
    train_seq_len = RECIPE["data"]["context"]
    train_batch_tokens = RECIPE["data"]["batch_tokens"]
    eval_seq_len = RECIPE["evaluate"]["context"]
    eval_stride = RECIPE["evaluate"]["stride"]
    eval_batch_seqs = int(os.environ.get("EVAL_BATCH_SEQS", 32))
    ttt_enabled = RECIPE["evaluate"]["ttt"] != "none"
    ttt_optimizer = RECIPE["evaluate"]["ttt"]
    ttt_chunk_tokens = RECIPE["evaluate"].get("chunk", 32768)
    ttt_lr = RECIPE["evaluate"].get("lr", 0.002)
    ttt_momentum = RECIPE["evaluate"].get("momentum", 0.9)
    ttt_epochs = RECIPE["evaluate"].get("epochs", 3)
    ttt_freeze_blocks = RECIPE["evaluate"].get("freeze", 0)
    ttt_last_blocks = RECIPE["evaluate"].get("last", 0)
    ttt_grad_clip = RECIPE["evaluate"].get("clip", 1.0)
    ttt_reset_chunks = RECIPE["evaluate"].get("reset", 0)
    ttt_decay = RECIPE["evaluate"].get("decay", 1.0)
    ttt_batch_seqs = RECIPE["evaluate"].get("rows", 32)
    quant_method = RECIPE["quantize"].get("method", "rtn")
    quant_bits = RECIPE["quantize"].get("bits", 6)
    quant_block = RECIPE["quantize"].get("block", 64)
    calibration = RECIPE["quantize"].get("calibration", "train")
    calibration_sequences = RECIPE["quantize"].get("sequences", 64)
    # Calibration on training data is training: its time is taken out of the training budget.
    calibration_seconds = 15.0 if quant_method == "gptq" else 0.0
    compressor = RECIPE["quantize"].get("compressor", "lzma")
    target_bytes = RECIPE["quantize"].get("target_bytes", 16_000_000)


# ---- data --------------------------------------------------------------------------------------


def load_data_shard(path: str) -> np.ndarray:
    """A shard's tokens, mapped: 256 little-endian int32 of header, then uint16 tokens."""
    header = np.fromfile(path, dtype="<i4", count=256)
    if header.size != 256 or header[0] != 20240520 or header[1] != 1:
        raise ValueError(f"unexpected shard header: {path}")
    count = int(header[2])
    if os.path.getsize(path) != 1024 + 2 * count:
        raise ValueError(f"shard size does not match its header: {path}")
    return np.memmap(path, dtype="<u2", mode="r", offset=1024, shape=(count,))


def load_validation_tokens(pattern: str, seq_len: int) -> Tensor:
    """The whole validation stream, trimmed to whole sequences plus the last target."""
    files = sorted(glob.glob(pattern))
    if not files:
        raise FileNotFoundError(f"no validation shards: {pattern}")
    tokens = np.concatenate([load_data_shard(path) for path in files]).astype(np.int64)
    usable = (len(tokens) - 1) // seq_len * seq_len
    if usable <= 0:
        raise ValueError(f"validation stream is shorter than one sequence of {seq_len}")
    return torch.from_numpy(tokens[: usable + 1])


def build_byte_tables(path: str, vocab_size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Bytes of each piece without its leading space, whether it has one, whether it is a boundary."""
    sp = sentencepiece.SentencePieceProcessor(model_file=path)
    size = max(vocab_size, sp.vocab_size())
    base = np.zeros(size, dtype=np.int64)
    spaced = np.zeros(size, dtype=bool)
    boundary = np.ones(size, dtype=bool)
    for token in range(sp.vocab_size()):
        if sp.is_control(token) or sp.is_unknown(token) or sp.is_unused(token):
            continue
        boundary[token] = False
        if sp.is_byte(token):
            base[token] = 1
            continue
        piece = sp.id_to_piece(token)
        if piece.startswith("\u2581"):
            spaced[token] = True
            piece = piece[1:]
        base[token] = len(piece.encode("utf-8"))
    return (
        torch.from_numpy(base).to(device),
        torch.from_numpy(spaced).to(device),
        torch.from_numpy(boundary).to(device),
    )


# ---- quantization ------------------------------------------------------------------------------


class InputGrams:
    """H = X^T X of every matrix's input, from forward passes on tokens that training may use."""

    def __init__(self, model: Golf) -> None:
        self.model = model
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    @torch.no_grad()
    def add(self, inputs: Tensor) -> None:
        hooks = []
        for name, module in self.model.quantizable().items():
            hooks.append(module.register_forward_pre_hook(lambda _m, x, name=name: self.collect(name, x[0])))
        self.model.use_kernels()
        self.model.eval()
        with torch.compiler.set_stance("force_eager"):
            self.model.forward_logits(inputs)
        self.model.train()
        self.model.use_kernels(mlp=RECIPE["run"]["mlp"], attention=RECIPE["run"]["attention"])
        for hook in hooks:
            hook.remove()

    def collect(self, name: str, x: Tensor) -> None:
        flat = x.detach().reshape(-1, x.size(-1)).float()
        gram = flat.T @ flat
        self.sums[name] = self.sums[name] + gram if name in self.sums else gram
        self.counts[name] = self.counts.get(name, 0) + flat.size(0)

    def hessian(self, name: str) -> Tensor:
        return self.sums[name] / max(1, self.counts[name])


@torch.no_grad()
def generate(model: Golf, sequences: int, length: int, device: torch.device) -> Tensor:
    """Sequences that the model samples itself, from a document start."""
    source = torch.Generator(device=device).manual_seed(0)
    ids = torch.full((sequences, 1), RECIPE["model"]["bos"], dtype=torch.int64, device=device)
    model.eval()
    while ids.size(1) < length:
        odds = torch.softmax(model.forward_logits(ids, last=1)[:, -1] / 0.8, dim=-1)
        ids = torch.cat((ids, torch.multinomial(odds, 1, generator=source)), dim=1)
    model.train()
    return ids


def best_row_scales(weight: Tensor, bits: int) -> Tensor:
    """Per row the clip, out of five quantiles of its magnitudes, with the smallest squared error."""
    top = 2 ** (bits - 1) - 1
    ordered = weight.abs().sort(dim=1).values
    best_scale, best_error = row_scales(weight, bits), torch.full_like(weight[:, :1], math.inf)
    for share in (0.999, 0.9995, 0.9999, 0.99999, 1.0):
        place = min(weight.size(1) - 1, round(share * (weight.size(1) - 1)))
        scale = (ordered[:, place : place + 1] / top).half().float()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        error = ((weight / scale).round().clamp(-top, top) * scale - weight).square().sum(1, keepdim=True)
        best_scale = torch.where(error < best_error, scale, best_scale)
        best_error = torch.minimum(error, best_error)
    return best_scale


@torch.no_grad()
def quantize_state(model: Golf, grams: InputGrams | None) -> dict[str, dict]:
    """Integer codes and one half-precision scale per row for matrices and tables, half precision for the rest."""
    args = Hyperparameters
    packed: dict[str, dict] = {}
    for name, tensor in model.state_dict().items():
        weight = tensor.detach().float()
        if weight.dim() != 2 or weight.numel() < 1024 or name.endswith(("mix", "skip_scale", "lanes.post")):
            packed[name] = {"kind": "half", "values": weight.half().cpu().numpy()}
            continue
        top = 2 ** (args.quant_bits - 1) - 1
        scale = best_row_scales(weight, args.quant_bits)
        if grams is not None and name in grams.sums:
            factor = factorise(grams.hessian(name)[None])
            codes = sweep(weight[None], factor, scale.T.contiguous(), nearest(top), block=args.quant_block)[0]
        else:
            codes = (weight / scale).round().clamp(-top, top)
        packed[name] = {
            "kind": "codes", "codes": codes.to(torch.int8).cpu().numpy(), "scale": scale.half().cpu().numpy(),
        }  # fmt: skip
    return packed


def squeeze(data: bytes, compressor: str) -> bytes:
    if compressor == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=22).compress(data)
    if compressor == "brotli":
        import brotli

        return brotli.compress(data, quality=11)
    return lzma.compress(data, preset=9) if compressor == "lzma" else zlib.compress(data, 9)


def expand(data: bytes, compressor: str) -> bytes:
    if compressor == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompress(data)
    if compressor == "brotli":
        import brotli

        return brotli.decompress(data)
    return lzma.decompress(data) if compressor == "lzma" else zlib.decompress(data)


def pack(packed: dict[str, dict], compressor: str) -> bytes:
    """A header of names and shapes, then the arrays one after the other, compressed."""
    header, body = [], io.BytesIO()
    for name, entry in packed.items():
        arrays = [entry["values"]] if entry["kind"] == "half" else [entry["codes"], entry["scale"]]
        header.append([name, entry["kind"], list(arrays[0].shape)])
        for array in arrays:
            body.write(array.tobytes())
    head = json.dumps(header).encode()
    return squeeze(struct.pack("<I", len(head)) + head + body.getvalue(), compressor)


def unpack(blob: bytes, compressor: str) -> dict[str, Tensor]:
    """The dequantized state, as the scored model gets it."""
    data = expand(blob, compressor)
    length = struct.unpack("<I", data[:4])[0]
    place, state = 4 + length, {}
    for name, kind, shape in json.loads(data[4 : 4 + length]):
        count = math.prod(shape)
        if kind == "half":
            values = np.frombuffer(data, dtype=np.float16, count=count, offset=place).reshape(shape)
            place += 2 * count
            state[name] = torch.from_numpy(values.astype(np.float32))
        else:
            codes = np.frombuffer(data, dtype=np.int8, count=count, offset=place).reshape(shape)
            scale = np.frombuffer(data, dtype=np.float16, count=shape[0], offset=place + count).reshape(-1, 1)
            place += count + 2 * shape[0]
            state[name] = torch.from_numpy(codes.astype(np.float32) * scale.astype(np.float32))
    return state


def prune_codes(packed: dict[str, dict], share: float) -> dict[str, dict]:
    """The packed state with that share of all codes +-1 set to zero, cheapest (smallest scale squared) first."""
    costs = {n: np.broadcast_to(e["scale"].astype(np.float32) ** 2, e["codes"].shape)[np.abs(e["codes"]) == 1]
             for n, e in packed.items() if e["kind"] == "codes"}  # fmt: skip
    every = np.sort(np.concatenate([c.ravel() for c in costs.values()]))
    if share <= 0 or not every.size:
        return packed
    limit = every[min(every.size - 1, int(share * every.size))]
    pruned = {}
    for name, entry in packed.items():
        pruned[name] = entry
        if entry["kind"] == "codes":
            victims = (np.abs(entry["codes"]) == 1) & (entry["scale"].astype(np.float32) ** 2 <= limit)
            pruned[name] = entry | {"codes": np.where(victims, 0, entry["codes"]).astype(np.int8)}
    return pruned


def pack_to_size(packed: dict[str, dict], compressor: str, room: int) -> tuple[bytes, float]:
    """The largest artifact that fits: nothing pruned where it fits as it is, else by bisection."""
    blob, low, high = pack(packed, compressor), 0.0, 1.0
    share = 0.0
    if len(blob) <= room:
        return blob, share
    for _ in range(7):
        share = (low + high) / 2
        blob = pack(prune_codes(packed, share), compressor)
        low, high = (low, share) if len(blob) <= room else (share, high)
    return pack(prune_codes(packed, high), compressor), high


# ---- training ----------------------------------------------------------------------------------


def train_model(model: Golf, device: torch.device, rank: int, world_size: int, log0) -> InputGrams | None:
    """Trains for the wall-clock budget less calibration and installs the chosen average."""
    args = Hyperparameters
    data = DataConfig(**RECIPE["data"])
    compress = CompressConfig(**RECIPE["compress"])
    optim = OptimConfig(**RECIPE["optim"])
    budget = args.max_wallclock_seconds - args.calibration_seconds if args.max_wallclock_seconds else 0.0
    schedule = ScheduleConfig(
        **(RECIPE["schedule"] | {"steps": args.iterations, "seconds": max(budget, 0.0)})
    )
    files = sorted(glob.glob(args.train_files))
    if not files:
        raise FileNotFoundError(f"no training shards: {args.train_files}")
    shards = [load_data_shard(path) for path in files]
    windows = args.train_batch_tokens // args.train_seq_len
    sampler = Sampler([len(s) for s in shards], args.train_seq_len, windows, args.seed,
                      lambda batch: shard_alpha(data, min(1.0, batch / args.iterations)))  # fmt: skip
    loader = Loader(shards, sampler, rank=rank, world=world_size, ahead=data.prefetch)
    optimizers = Optimizers(model, optim)
    averages = Averages(AverageConfig(**RECIPE["average"]), model)
    grams = InputGrams(model) if args.quant_method == "gptq" else None
    rows = windows // world_size
    micro = max(1, min(rows, (data.micro_tokens or args.train_batch_tokens) // args.train_seq_len))
    while rows % micro:
        micro -= 1
    if RECIPE["run"]["compile"] != "off":
        for block in model.blocks:
            block.compile(dynamic=False)
    train_batches = on_device(loader, device)
    training_time_ms, step = 0.0, 0
    repeats_on = RECIPE["model"]["repeat_active"] or not RECIPE["model"]["repeat_layers"]
    model.train()
    started = time.perf_counter()
    while True:
        elapsed = torch.tensor(time.perf_counter() - started, device=device, dtype=torch.float64)
        if world_size > 1:
            dist.broadcast(elapsed, 0)
        training_time_ms = 1000.0 * elapsed.item()
        if progress(schedule, step, training_time_ms / 1000.0) >= 1.0:
            break
        scale = lr_scale(schedule, step, training_time_ms / 1000.0)
        if not repeats_on and step >= schedule.repeat_start:
            model.activate_repeats()
            repeats_on = True
        enable(model, compress.qat_bits if compress.qat_bits and scale < compress.qat_below else 0)
        train_tokens, _ = next(train_batches)
        optimizers.zero_grad()
        train_loss = torch.zeros((), device=device)
        for part in train_tokens.split(micro):
            loss = model(part[:, :-1], part[:, 1:]) * (part.size(0) / rows)
            loss.backward()
            train_loss += loss.detach()
        optimizers.step(scale, momentum(optim, step))
        step += 1
        averages.update(step, scale)
        if grams is not None and compress.hessian_every and step % compress.hessian_every == 0:
            grams.add(train_tokens[:8, :-1])
        if step % args.train_log_every == 0 or step <= 3:
            log0(f"step:{step}/{args.iterations} train_loss:{train_loss.item():.4f} "
                 f"train_time:{training_time_ms:.0f}ms step_avg:{training_time_ms / step:.2f}ms")  # fmt: skip
    log0(f"stopping_early: wallclock_cap train_time:{training_time_ms:.0f}ms step:{step}/{args.iterations}")
    with torch.no_grad():
        own = dict(model.named_parameters())
        for name, value in averages.chosen().items():
            own[name].copy_(value)
    if compress.prune:
        prune_smallest(model.blocks, compress.prune)
    enable(model, 0)
    if grams is not None and not grams.sums:
        calibrate(model, grams, train_batches, device)
    loader.close()
    log0(f"calibrated train_time:{1000.0 * (time.perf_counter() - started):.0f}ms")
    return grams


def calibrate(model: Golf, grams: InputGrams, train_batches, device: torch.device) -> None:
    """Fills the Hessians from training tokens, from random tokens, or from text that the model writes."""
    args = Hyperparameters
    if args.calibration == "random":
        source = torch.Generator().manual_seed(args.seed)
        shape = (args.calibration_sequences, args.train_seq_len)
        for part in torch.randint(0, args.vocab_size, shape, generator=source).split(8):
            grams.add(part.to(device))
    elif args.calibration == "self":
        for part in generate(model, args.calibration_sequences, min(256, args.train_seq_len), device).split(
            8
        ):
            grams.add(part)
    else:
        seen = 0
        while seen < args.calibration_sequences:
            train_tokens, _ = next(train_batches)
            for part in train_tokens[: args.calibration_sequences - seen].split(8):
                grams.add(part[:, :-1])
                seen += part.size(0)


# ---- evaluation --------------------------------------------------------------------------------


def chunk_windows(total: int, first: int, last: int, seq_len: int, stride: int) -> list[tuple[int, int, int]]:
    """(start, first scored, end) of the windows that score targets first .. last, each exactly once.

    A window scores its last ``stride`` targets with as much context before them as ``seq_len`` allows.
    """
    windows = []
    step = min(stride, seq_len)
    for begin in range(first, last, step):
        end = min(begin + step, last, total)
        windows.append((max(0, end - seq_len), begin, end))
    return windows


def score_windows(
    model: Golf, val_tokens: Tensor, windows: list[tuple[int, int, int]], tables, device: torch.device
):
    """Sums of loss, targets and bytes over the windows' scored targets."""
    base, spaced, boundary = tables
    loss_sum = torch.zeros((), device=device, dtype=torch.float64)
    token_count = torch.zeros((), device=device, dtype=torch.float64)
    byte_count = torch.zeros((), device=device, dtype=torch.float64)
    model.eval()
    with torch.no_grad():
        for i in range(0, len(windows), Hyperparameters.eval_batch_seqs):
            batch = windows[i : i + Hyperparameters.eval_batch_seqs]
            longest = max(end - start for start, _, end in batch)
            x = torch.zeros(len(batch), longest, dtype=torch.int64, device=device)
            y = torch.zeros(len(batch), longest, dtype=torch.int64, device=device)
            for row, (start, _, end) in enumerate(batch):
                span = val_tokens[start : end + 1].to(device)
                x[row, : end - start] = span[:-1]
                y[row, : end - start] = span[1:]
            logits = model.forward_logits(x)
            nll = F.cross_entropy(
                logits.reshape(-1, logits.size(-1)).float(), y.reshape(-1), reduction="none"
            )
            nll = nll.reshape(len(batch), longest)
            for row, (start, first, end) in enumerate(batch):
                scored = slice(first - start, end - start)
                loss_sum += nll[row, scored].double().sum()
                token_count += end - first
                targets, previous = y[row, scored], x[row, scored]
                byte_count += (base[targets] + (spaced[targets] & ~boundary[previous]).long()).sum()
    return loss_sum, token_count, byte_count


def eval_val_sliding(
    model: Golf, val_tokens: Tensor, tables, device: torch.device, rank: int, world_size: int
):
    """Sliding-window score of the whole validation stream without any adaptation."""
    args = Hyperparameters
    total = val_tokens.numel() - 1
    windows = chunk_windows(total, 0, total, args.eval_seq_len, args.eval_stride)
    loss_sum, token_count, byte_count = score_windows(
        model, val_tokens, windows[rank::world_size], tables, device
    )
    if world_size > 1:
        dist.all_reduce(loss_sum)
        dist.all_reduce(token_count)
        dist.all_reduce(byte_count)
    val_loss = (loss_sum / token_count).item()
    return val_loss, val_loss / math.log(2.0) * token_count.item() / byte_count.item()


def ttt_parameters(model: Golf) -> list[dict]:
    """What test-time training may change, with its rate: not the first blocks, or only the last ones."""
    args = Hyperparameters
    groups = []
    count = len(model.blocks)
    for name, param in model.named_parameters():
        block = int(name.split(".")[1]) if name.startswith("blocks.") else None
        if block is None:
            trainable = not args.ttt_last_blocks or name.startswith("head") or param.dim() < 2
        else:
            trainable = block >= args.ttt_freeze_blocks
            if args.ttt_last_blocks:
                trainable = block >= count - args.ttt_last_blocks or param.dim() < 2
        param.requires_grad_(trainable)
        if trainable:
            rate = args.ttt_decay ** (count - 1 - block) if block is not None else 1.0
            groups.append({"params": [param], "rate": rate})
    return groups


def eval_val_sliding_ttt(
    model: Golf, val_tokens: Tensor, tables, device: torch.device, rank: int, world_size: int
):
    """Score-first test-time training: each chunk is scored completely before the model trains on it."""
    args = Hyperparameters
    total = val_tokens.numel() - 1
    groups = ttt_parameters(model)
    params = [group["params"][0] for group in groups]
    initial = [param.detach().clone() for param in params]
    optimizer: torch.optim.Optimizer
    if args.ttt_optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=args.ttt_lr, weight_decay=0.0)
    else:
        optimizer = torch.optim.SGD(groups, lr=args.ttt_lr, momentum=args.ttt_momentum)
    loss_sum = torch.zeros((), device=device, dtype=torch.float64)
    token_count = torch.zeros((), device=device, dtype=torch.float64)
    byte_count = torch.zeros((), device=device, dtype=torch.float64)
    num_chunks = (total + args.ttt_chunk_tokens - 1) // args.ttt_chunk_tokens
    for ci in range(num_chunks):
        chunk_start = ci * args.ttt_chunk_tokens
        chunk_end = min(chunk_start + args.ttt_chunk_tokens, total)
        # Score this chunk with what was learned from earlier chunks only.
        windows = chunk_windows(total, chunk_start, chunk_end, args.eval_seq_len, args.eval_stride)
        losses, tokens, count = score_windows(model, val_tokens, windows[rank::world_size], tables, device)
        loss_sum += losses
        token_count += tokens
        byte_count += count
        if world_size > 1:
            dist.barrier()
        # Then train on it, unless it is the last: nothing would be scored with the result.
        is_last_chunk = ci == num_chunks - 1
        if not is_last_chunk:
            if args.ttt_reset_chunks and ci % args.ttt_reset_chunks == 0:
                with torch.no_grad():
                    for param, value in zip(params, initial, strict=True):
                        param.copy_(value)
            cosine = 0.5 * (1.0 + math.cos(math.pi * ci / max(num_chunks - 1, 1)))
            for group in optimizer.param_groups:
                group["lr"] = args.ttt_lr * cosine * group["rate"]
            num_seqs = (chunk_end - chunk_start) // args.eval_seq_len
            model.train()
            for _epoch in range(args.ttt_epochs):
                for begin in range(0, num_seqs, args.ttt_batch_seqs):
                    stop = min(begin + args.ttt_batch_seqs, num_seqs)
                    first = chunk_start + begin * args.eval_seq_len
                    last = chunk_start + stop * args.eval_seq_len
                    chunk_tokens = val_tokens[first : last + 1].to(device)
                    x = chunk_tokens[:-1].view(-1, args.eval_seq_len)[rank::world_size]
                    y = chunk_tokens[1:].view(-1, args.eval_seq_len)[rank::world_size]
                    optimizer.zero_grad(set_to_none=True)
                    if x.numel():
                        loss = model(x, y) * (x.size(0) / (stop - begin))
                        loss.backward()
                    if world_size > 1:
                        for param in params:
                            if param.grad is None:
                                param.grad = torch.zeros_like(param)
                            dist.all_reduce(param.grad)
                    nn.utils.clip_grad_norm_(params, args.ttt_grad_clip)
                    optimizer.step()
    if world_size > 1:
        dist.all_reduce(loss_sum)
        dist.all_reduce(token_count)
        dist.all_reduce(byte_count)
    val_loss = (loss_sum / token_count).item()
    return val_loss, val_loss / math.log(2.0) * token_count.item() / byte_count.item()


def main() -> None:
    args = Hyperparameters
    rank = int(os.environ.get("RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    if world_size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    code = Path(__file__).read_text(encoding="utf-8")

    def log0(message: str) -> None:
        if rank == 0:
            print(message, flush=True)

    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    config = ModelConfig(**RECIPE["model"])
    model = Golf(config).to(device)
    model.compute_dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model.use_kernels(mlp=RECIPE["run"]["mlp"], attention=RECIPE["run"]["attention"])
    log0(f"recipe:{RECIPE['name']}")
    log0(f"model_params:{sum(p.numel() for p in model.parameters())}")
    log0(f"world_size:{world_size} seed:{args.seed}")
    log0(f"train_batch_tokens:{args.train_batch_tokens} train_seq_len:{args.train_seq_len} "
         f"iterations:{args.iterations} max_wallclock_seconds:{args.max_wallclock_seconds:.3f}")  # fmt: skip
    grams = train_model(model, device, rank, world_size, log0)

    # The artifact: written by rank 0, read back by everybody.
    packed = quantize_state(model, grams)
    if rank == 0:
        room = args.target_bytes - len(code.encode("utf-8"))
        blob, share = pack_to_size(packed, args.compressor, room)
        Path("final_model.ptz").write_bytes(blob)
        log0(f"pruned_codes:{share:.4f}")
        log0(f"Serialized model int{args.quant_bits}+{args.compressor}: {len(blob)} bytes")
        log0(f"Code size: {len(code.encode('utf-8'))} bytes")
        log0(
            f"Total submission size int{args.quant_bits}+{args.compressor}: {len(blob) + len(code.encode('utf-8'))} bytes"
        )
    if world_size > 1:
        dist.barrier()
    state = unpack(Path("final_model.ptz").read_bytes(), args.compressor)
    eval_model = Golf(config).to(device)
    eval_model.load_state_dict(state)
    eval_model.compute_dtype = model.compute_dtype
    if RECIPE["model"]["repeat_layers"]:
        eval_model.visits = model.visits
    del model

    val_tokens = load_validation_tokens(args.val_files, args.eval_seq_len)
    tables = build_byte_tables(args.tokenizer_path, args.vocab_size, device)
    log0(f"val_loader:shards pattern={args.val_files} tokens:{val_tokens.numel() - 1}")
    # One evaluation, the one that is reported.
    started = time.perf_counter()
    if args.ttt_enabled:
        val_loss, val_bpb = eval_val_sliding_ttt(eval_model, val_tokens, tables, device, rank, world_size)
    else:
        val_loss, val_bpb = eval_val_sliding(eval_model, val_tokens, tables, device, rank, world_size)
    label = "legal_ttt" if args.ttt_enabled else f"final_int{args.quant_bits}_sliding_window"
    log0(f"{label} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} stride:{args.eval_stride} "
         f"eval_time:{1000.0 * (time.perf_counter() - started):.0f}ms")  # fmt: skip
    log0(f"final_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
