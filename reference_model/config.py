"""What a recipe can say: frozen dataclasses, read from TOML, overridden by ``key=value``.

A recipe composes parts; no part ever asks which recipe it is in. Every field names its source, and the
field's default is the neutral setting ("off"), so that a recipe file shows all of what it switches on.
This module imports no torch: a wrong recipe is reported before anything heavy starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.contracts import InputError

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The family "golf". Shapes: D = dim, H = heads, K = kv_heads, V = vocab."""

    vocab: int = 1024
    layers: int = 4
    dim: int = 128
    heads: int = 4
    kv_heads: int = 2  # GQA when smaller than heads (arXiv:2305.13245), MHA when equal
    mlp_hidden: int = 384  # any width
    mlp_slope: float = 0.5  # LeakyReLU slope before squaring; 0 is ReLU squared (PR 493)
    moe_experts: int = 0  # > 1: hidden width split over the experts, top-1 (PR 827)
    tied: bool = True  # the output head is the token embedding
    embed_std: float = 0.005  # init of the token embedding
    init: str = "orthogonal"  # or "normal"; output projections start at zero either way
    rope_dims: int = 0  # 0 rotates the whole head; 16 of 64 in PR 287
    rope_base: float = 10_000.0
    rope_reference: int = 0  # > 0: base grows for contexts longer than this (NTK-aware; 1024 in PR 726)
    qk_norm: bool = True  # RMSNorm on queries and keys
    q_gain: float = 1.5  # init of one factor per query head, after the norm
    xsa_layers: int = 0  # exclusive self-attention on the last n layers (PR 198)
    smear: bool = False  # SmearGate on the embedding
    smear_document_mask: bool = True  # nothing is smeared into a document's first token (rule F12)
    bigram_size: int = 0  # rows of the BigramHash table; 0 is off
    bigram_dim: int = 128
    value_dim: int = 0  # shared value embedding; 0 is off
    value_layers: tuple[int, ...] = ()  # the layers that add it to their values
    unet: bool = False  # skips from the first half of the visits into the second, last to first
    unet_encoder: int = 0  # visits in the first half; 0 means half of them, rounded down
    norm_scale: bool = False  # norm output times 1 / sqrt(layer + 1) (PR 726)
    residual_mix: bool = False  # block input = a * x + b * x0
    branch_scale: bool = False  # one factor per channel on what attention and MLP add
    loop_from: int = 0  # looped layers: layers loop_from .. loop_to run `loops` times, in turn
    loop_to: int = 0
    loops: int = 1
    gated_layer: int = 0  # depth recurrence with gated sharing: this layer runs gated_repeats times
    gated_repeats: int = 0  # 0 is off (PR 827)
    repeat_layers: tuple[int, ...] = ()  # run a second time at mid-depth with an MLP of their own (PR 827)
    repeat_active: bool = False  # whether they do; the trainer switches it on at schedule.repeat_start
    lanes_from: int = -1  # two-lane residuals from this layer on; -1 is off (PR 827)
    softcap: float = 30.0  # logits = softcap * tanh(logits / softcap); 0 is off
    bos: int = 1  # the token that opens a document

    def check(self) -> None:
        """Raises InputError for a shape that cannot exist."""

        def need(ok: bool, what: str) -> None:
            if not ok:
                raise InputError(f"model: {what}")

        need(self.layers > 0 and self.dim > 0 and self.vocab > 1, "layers, dim and vocab must be positive")
        need(self.dim % self.heads == 0, f"dim {self.dim} is no multiple of heads {self.heads}")
        need(
            self.heads % self.kv_heads == 0, f"heads {self.heads} is no multiple of kv_heads {self.kv_heads}"
        )
        need(self.head_dim % 2 == 0, f"head width {self.head_dim} is odd; RoPE turns pairs")
        need(
            0 <= self.rope_dims <= self.head_dim,
            f"rope_dims {self.rope_dims} exceeds the head {self.head_dim}",
        )
        need(self.rope_dims % 2 == 0, "rope_dims is odd; RoPE turns pairs")
        need(
            0 <= self.xsa_layers <= self.layers, f"xsa_layers {self.xsa_layers} exceeds layers {self.layers}"
        )
        need(self.bigram_size == 0 or self.bigram_size > 2, "bigram_size must be 0 or at least 3")
        need(self.init in ("orthogonal", "normal"), f"init {self.init!r} is neither orthogonal nor normal")
        need(self.moe_experts < 2 or self.mlp_hidden % self.moe_experts == 0,
             f"mlp_hidden {self.mlp_hidden} is no multiple of moe_experts {self.moe_experts}")  # fmt: skip
        for name, chosen in (("value_layers", self.value_layers), ("repeat_layers", self.repeat_layers)):
            need(
                all(0 <= i < self.layers for i in chosen),
                f"{name} {list(chosen)}: layers are 0..{self.layers - 1}",
            )
        need(not self.value_layers or self.value_dim > 0, "value_layers need value_dim > 0")
        need(self.lanes_from < self.layers, f"lanes_from {self.lanes_from}: layers are 0..{self.layers - 1}")
        need(
            self.loops == 1 or 0 <= self.loop_from <= self.loop_to < self.layers,
            "loop_from..loop_to out of range",
        )
        need(self.gated_repeats == 0 or 0 <= self.gated_layer < self.layers, "gated_layer out of range")
        need(self.gated_repeats == 0 or self.loops == 1, "gated_repeats and loops do not combine")
        need(self.lanes_from < 0 or (self.gated_repeats == 0 and not self.repeat_layers),
             "lanes_from does not combine with gated_repeats or repeat_layers")  # fmt: skip

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """Muon for the matrices inside blocks, AdamW for the rest (PR 549, PR 726)."""

    matrix_lr: float = 0.025
    embed_lr: float = 0.035  # token, bigram and value tables, and an untied head
    scalar_lr: float = 0.025  # gains, scales, gates; also the small projections of bigram and value tables
    momentum: float = 0.99
    momentum_start: float = 0.92
    momentum_warmup: int = 1500  # steps from momentum_start to momentum
    nesterov: bool = True
    orthogonalizer: str = "ns5"  # or "polar" (Polar Express, arXiv:2505.16932)
    orthogonal_steps: int = 5  # iterations; polar has at most 5 coefficients, 4 in PR 827
    row_normalize: bool = False  # MuonEq-R: rows of the momentum normalised first (PR 827)
    weight_decay: float = 0.04  # decoupled, on the matrices
    adam_decay: float = 0.04  # decoupled, on the tables
    scalar_decay: float = 0.0  # decoupled, on all the rest (PR 726 decays these too)
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float = 0.3  # global gradient norm; 0 is off

    def check(self) -> None:
        if self.orthogonalizer not in ("ns5", "polar"):
            raise InputError(f"optim: orthogonalizer {self.orthogonalizer!r} is neither ns5 nor polar")
        if self.orthogonalizer == "polar" and self.orthogonal_steps > 5:
            raise InputError("optim: polar has coefficients for at most 5 steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    context: int = 256  # T: tokens of one training sequence
    batch_tokens: int = 8192  # tokens of one step over all ranks and micro-batches
    micro_tokens: int = 0  # tokens of one forward pass on one rank; 0 means all of the rank's share
    alpha_start: float = 0.90  # shard weight = remaining ** alpha, alpha decays with progress (PR 1171)
    alpha_end: float = 0.50
    prefetch: int = 2  # batches built ahead by the daemon thread

    def check(self) -> None:
        if self.context < 2 or self.batch_tokens < self.context:
            raise InputError(f"data: batch_tokens {self.batch_tokens} holds no sequence of {self.context}")
        if self.batch_tokens % self.context:
            raise InputError(
                f"data: batch_tokens {self.batch_tokens} is no multiple of context {self.context}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """When training ends and how the learning rate goes down before it does."""

    seconds: float = 60.0  # training clock; 0 means steps alone decide
    steps: int = 20_000
    warmup: int = 0  # steps of linear warm-up of the learning rate
    warmdown: int = 3500  # steps of warm-down before the end
    warmdown_fraction: float = 0.0  # > 0: a share of the run instead of a number of steps
    shape: str = "linear"  # or "sqrt": scale = 1 - sqrt(1 - linear) (PR 827)
    floor: float = 0.0  # the scale never falls below it
    repeat_start: int = 0  # step at which repeat_layers begin

    def check(self) -> None:
        if self.shape not in ("linear", "sqrt"):
            raise InputError(f"schedule: shape {self.shape!r} is neither linear nor sqrt")
        if self.steps < 1 or self.seconds < 0:
            raise InputError("schedule: steps must be positive and seconds not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageConfig:
    ema: float = 0.0  # decay per step; 0 is off
    ema_warmup: bool = False  # decay at most (1 + t) / (10 + t): a short run forgets its start
    swa_every: int = 0  # steps between samples; 0 is off
    swa_below: float = (
        1.0  # sample only while the learning-rate scale is under this: 0.2 is tight SWA, 1 always
    )
    use: str = "raw"  # raw, ema, swa, or blend (chosen here, never by validation score: rule D1)
    blend: float = 0.5  # share of SWA in the blend with EMA

    def check(self) -> None:
        if self.use not in ("raw", "ema", "swa", "blend"):
            raise InputError(f"average: use {self.use!r} is none of raw, ema, swa, blend")
        if self.use in ("ema", "blend") and not self.ema:
            raise InputError(f"average: use = {self.use!r} needs ema > 0")
        if self.use in ("swa", "blend") and not self.swa_every:
            raise InputError(f"average: use = {self.use!r} needs swa_every > 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressConfig:
    """What training does for the artifact's sake; the quantizer reads the same section."""

    qat_bits: int = 0  # late quantization-aware training on this grid; 0 is off
    qat_below: float = 0.15  # starts once the learning-rate scale is under this
    prune: float = 0.0  # share of each matrix's smallest magnitudes set to zero at the end
    hessian_every: int = 0  # steps between passes that accumulate H = X^T X for GPTQ (PR 1072); 0 is off
    hessian_tokens: int = 16_384  # training tokens of one such pass on rank 0; the clock counts it

    def check(self) -> None:
        if self.qat_bits not in (0, 4, 5, 6, 7, 8):
            raise InputError(f"compress: qat_bits {self.qat_bits} is none of 0, 4..8")
        if not 0.0 <= self.prune < 1.0:
            raise InputError(f"compress: prune {self.prune} is no share below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    seed: int = 1337
    compile: str = "off"  # off, block (each block on its own: short compile time) or model
    mlp: str = "eager"  # eager, fused (linear -> LeakyReLU squared) or mega (norm to residual)
    attention: str = "eager"  # eager or fused (QK norm + RoPE + gain in one kernel)
    stop_after: int = 0  # stop at this step with the schedule unchanged; 0 runs to the schedule's end
    checkpoint_every: int = 0  # steps between checkpoints; 0 is only at the end and on SIGTERM
    log_every: int = 10
    validate_tokens: int = 131_072  # targets of the validation prefix that bits per byte is measured on
    validate_every: int = 0  # steps; 0 is only before and after

    def check(self) -> None:
        if self.compile not in ("off", "block", "model"):
            raise InputError(f"run: compile {self.compile!r} is none of off, block, model")
        if self.mlp not in ("eager", "fused", "mega") or self.attention not in ("eager", "fused"):
            raise InputError("run: mlp is one of eager, fused, mega; attention one of eager, fused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    name: str
    source: str = ""  # where the recipe comes from, one line
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    compress: CompressConfig = field(default_factory=CompressConfig)
    run: RunConfig = field(default_factory=RunConfig)
    # What the evaluator should do with the artifact (score-first TTT and the like). Free-form on
    # purpose: the harness owns its meaning, training only carries it along.
    evaluate: dict[str, Any] = field(default_factory=dict)
    quantize: dict[str, Any] = field(default_factory=dict)

    def check(self) -> Recipe:
        for part in PARTS:
            getattr(self, part).check()
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``from_dict`` restores it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def digest(self) -> str:
        """sha256 over the canonical JSON of everything the recipe says."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def shrink(recipe: Recipe) -> Recipe:
    """The same parts at a size that a CPU trains in seconds: 11 layers stay 11, width 512 becomes 64.

    Ratios are kept (heads per key head, MLP width, rotated share of a head); tables and batches shrink;
    kernels and compilation, which want a GPU, are off.
    """
    model, data = recipe.model, recipe.data
    heads = min(model.heads, 4)
    small = dataclasses.replace(
        model, dim=16 * heads, heads=heads, kv_heads=max(1, heads * model.kv_heads // model.heads),
        mlp_hidden=max(model.moe_experts, 1) * max(1, 16 * heads * model.mlp_hidden // model.dim // max(model.moe_experts, 1)),
        rope_dims=2 * round(8 * model.rope_dims / model.head_dim),
        bigram_size=min(model.bigram_size, 65), bigram_dim=min(model.bigram_dim, 8), value_dim=min(model.value_dim, 8),
    )  # fmt: skip
    return dataclasses.replace(
        recipe,
        model=small,
        data=dataclasses.replace(data, context=32, batch_tokens=256, micro_tokens=0),
        compress=dataclasses.replace(recipe.compress, hessian_tokens=64),
        evaluate=recipe.evaluate
        | {"context": 32, "stride": 16}
        | ({"chunk": 512} if "chunk" in recipe.evaluate else {}),
        quantize=recipe.quantize | ({"sequences": 16} if "sequences" in recipe.quantize else {}),
        run=dataclasses.replace(
            recipe.run, compile="off", mlp="eager", attention="eager", validate_tokens=4096, log_every=1
        ),
    ).check()


PARTS = ("model", "optim", "data", "schedule", "average", "compress", "run")


def model_config(values: dict[str, Any]) -> ModelConfig:
    """A ModelConfig from plain JSON types (an artifact's header). Raises InputError."""
    config: ModelConfig = _build(ModelConfig, values, "model")
    config.check()
    return config


def from_dict(values: dict[str, Any], origin: str = "recipe") -> Recipe:
    """A Recipe from nested plain values. Raises InputError that names the wrong key."""
    known = {f.name: f for f in dataclasses.fields(Recipe)}
    for key in values:
        if key not in known:
            raise InputError(f"{origin}: unknown section {key!r}; known are {', '.join(known)}")
    arguments: dict[str, Any] = {k: v for k, v in values.items() if k not in PARTS}
    types_of = typing.get_type_hints(Recipe)
    for part in PARTS:
        arguments[part] = _build(types_of[part], values.get(part, {}), f"{origin}: {part}")
    arguments.setdefault("name", "unnamed")
    return Recipe(**arguments).check()


def _build(kind: type, values: dict[str, Any], origin: str) -> Any:
    hints = typing.get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise InputError(f"{origin}: unknown key {key!r}; known are {', '.join(hints)}")
        arguments[key] = _coerce(value, hints[key], f"{origin}.{key}")
    return kind(**arguments)


def _coerce(value: Any, kind: Any, where: str) -> Any:
    if isinstance(kind, types.GenericAlias):  # tuple[int, ...] is the only one
        if isinstance(value, str):
            value = [part for part in value.strip("[]() ").split(",") if part.strip()]
        try:
            return tuple(int(item) for item in value)
        except (TypeError, ValueError):
            raise InputError(f"{where}: {value!r} is no list of integers") from None
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            return str(value).lower() in ("1", "true", "yes", "on")
    elif kind is str:
        return str(value)
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(str(value).replace("_", ""))
            if kind is float or number == int(number):
                return kind(number)
        except (ValueError, OverflowError):
            pass
    raise InputError(f"{where}: {value!r} is no {kind.__name__}")


def names() -> list[str]:
    """The recipes that ship with the program."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load(recipe: str, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Reads a recipe by name or path and applies ``section.key=value`` overrides.

    A bare ``key=value`` is accepted where the key belongs to exactly one section.
    """
    path = Path(recipe) if recipe.endswith(".toml") else RECIPES / f"{recipe}.toml"
    if not path.is_file():
        raise InputError(f"{recipe}: no such recipe; give a .toml file or one of {', '.join(names())}")
    try:
        with path.open("rb") as handle:
            values = tomllib.load(handle)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: {error}") from None
    values.setdefault("name", path.stem)
    return _with(values, overrides, str(path))


def change(recipe: Recipe, overrides: typing.Sequence[str]) -> Recipe:
    """The recipe with ``section.key=value`` overrides applied. Raises InputError."""
    return _with(recipe.as_dict(), overrides, recipe.name)


def _with(values: dict[str, Any], overrides: typing.Sequence[str], origin: str) -> Recipe:
    for item in overrides:
        section, key, value = _override(item)
        values.setdefault(section, {})[key] = value
    return from_dict(values, origin=origin)


def _override(item: str) -> tuple[str, str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise InputError(f"--set {item}: expected key=value, such as model.layers=6")
    if "." in name:
        section, _, key = name.partition(".")
        if section not in PARTS:
            raise InputError(f"--set {item}: unknown section {section!r}; known are {', '.join(PARTS)}")
        return section, key, value
    hints = typing.get_type_hints(Recipe)
    owners = [part for part in PARTS if name in typing.get_type_hints(hints[part])]
    if len(owners) != 1:
        hint = f"it is in {' and '.join(owners)}; write section.key=value" if owners else "no section has it"
        raise InputError(f"--set {item}: {name!r}: {hint}")
    return owners[0], name, value
