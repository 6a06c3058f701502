"""The training loop: one recipe, one data folder, one output folder."""

from __future__ import annotations

import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from audit.contracts import InputError
from reference_model import qat, schedule
from reference_model.averaging import Averages
from reference_model.config import Recipe
from reference_model.data.prefetch import on_device
from reference_model.model.count import flops_per_token, parameters
from reference_model.optim import Optimizers
from reference_model.prune import prune_smallest
from reference_model.quantize.hessian import OnlineHessians
from reference_model.train import checkpoint, setup
from reference_model.train.clock import Clock
from reference_model.train.logs import Logs
from reference_model.train.ranks import Ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished (or interrupted) run can say about itself."""

    steps: int
    seconds: float
    first_bpb: float | None
    last_bpb: float | None
    interrupted: int | None  # the signal's number
    checkpoint: Path | None


class Trainer:
    def __init__(
        self, recipe: Recipe, data: Path, out: Path, ranks: Ranks, logs: Logs, *, deterministic: bool = False
    ) -> None:
        self.recipe, self.out, self.ranks, self.logs = recipe, out, ranks, logs
        setup.seed_everything(recipe.run.seed, deterministic)
        self.data = setup.open_data(recipe, data, ranks)
        self.model = setup.make_model(recipe, ranks.device)
        self.optimizers = Optimizers(self.model, recipe.optim)
        self.averages = Averages(recipe.average, self.model)
        every = recipe.compress.hessian_every
        self.hessians = OnlineHessians(every) if every else None
        self.loss_of = setup.compile_model(self.model, recipe.run.compile)
        self.clock = Clock()
        self.step = 0
        self.repeat_active = recipe.model.repeat_active
        self.first_bpb: float | None = None
        self.signal: int | None = None
        rows = recipe.data.batch_tokens // recipe.data.context // ranks.world
        self.rows = setup.micro_rows(recipe, rows)
        self.micro_batches = rows // self.rows
        self.flops = flops_per_token(self.model, recipe.data.context)
        self.peak = setup.peak_flops(ranks.device)

    # ---- resuming -----------------------------------------------------------------------------

    def training_state(self) -> dict[str, Any]:
        """Everything the next step depends on. Collective: every rank must call it."""
        return {
            "recipe": self.recipe.digest(),
            "step": self.step,
            "elapsed": self.clock.elapsed,
            "first_bpb": self.first_bpb,
            "repeat_active": self.repeat_active,
            "model": {name: p.detach().clone() for name, p in self.model.named_parameters()},
            "optimizers": self.optimizers.state_dict(),
            "averages": self.averages.state_dict(),
            "sampler": self.sampler_state,
            "random": torch.get_rng_state(),
            "hessians": None if self.hessians is None else self.hessians.resume_state(),
        }

    def restore(self, path: Path) -> None:
        state = checkpoint.load(path)
        if state["recipe"] != self.recipe.digest():
            raise InputError(
                f"{path}: belongs to another recipe or other --set values; use a new --out folder"
            )
        if state["repeat_active"] and not self.repeat_active:
            self._activate_repeats()
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in state["model"].items():
                own[name].copy_(tensor)
        self.optimizers.load_state_dict(state["optimizers"])
        self.averages.load_state_dict(state["averages"])
        if self.hessians is not None:
            self.hessians.restore(state["hessians"])
        self.sampler_state = state["sampler"]
        self.data.loader.sampler.load_state_dict(state["sampler"])
        torch.set_rng_state(state["random"])
        self.step, self.first_bpb = state["step"], state["first_bpb"]
        self.clock = Clock(state["elapsed"])

    def save(self) -> None:
        state = self.training_state()
        if self.ranks.first:
            checkpoint.save(self.out / "resume.pt", state)
        self.ranks.barrier()

    def export(self) -> Path:
        """Installs the chosen average, prunes, and writes ``checkpoint.pt`` for the quantizer."""
        with torch.no_grad():
            own = dict(self.model.named_parameters())
            for name, tensor in self.averages.chosen().items():
                own[name].copy_(tensor)
        if self.recipe.compress.prune:
            count = prune_smallest(self.model.blocks, self.recipe.compress.prune)
            self.logs.line(f"pruned:{count} share:{self.recipe.compress.prune}")
        path = self.out / "checkpoint.pt"
        recipe = self.recipe.as_dict()
        config = recipe["model"] | {"repeat_active": self.repeat_active}
        if self.ranks.first:
            content: dict[str, Any] = {
                "family": checkpoint.FAMILY,
                "config": config,
                "state": {name: tensor.float().cpu() for name, tensor in self.model.state_dict().items()},
                "step": self.step,
                "recipe": recipe,
            }
            if self.hessians is not None and self.hessians.ready:
                content["hessians"] = self.hessians.state()
            checkpoint.save(path, content)
        return path

    # ---- the loop -----------------------------------------------------------------------------

    def run(self) -> Outcome:
        recipe, logs = self.recipe, self.logs
        self.sampler_state = self.data.loader.sampler.state_dict()
        resume = self.out / "resume.pt"
        if resume.is_file():
            self.restore(resume)
            logs.say(f"resuming at step {self.step}")
        self._headline()
        setup.warm_up(self.loss_of, self.model, self.optimizers, recipe, self.rows)
        self.optimizers.zero_grad()
        if self.step == 0 and self.data.validation is not None:
            self.first_bpb = self._validate(0.0)
        batches = on_device(self.data.loader, self.ranks.device)
        previous = (
            signal.signal(signal.SIGTERM, self._on_signal),
            signal.signal(signal.SIGINT, self._on_signal),
        )
        self.model.train()
        self.clock.start()
        try:
            finished = self._steps(batches)
        finally:
            signal.signal(signal.SIGTERM, previous[0])
            signal.signal(signal.SIGINT, previous[1])
            self.data.loader.close()
        self._synchronize()
        self.clock.stop()
        if not finished:
            self.save()
            return self._outcome(None, None)
        path = self.export()
        last = self._validate(schedule.lr_scale(recipe.schedule, self.step, self.clock.elapsed), final=True)
        resume.unlink(missing_ok=True)  # a second run of the same command starts anew
        return self._outcome(last, path)

    def _steps(self, batches: Any) -> bool:
        """Runs to the end of the schedule (True) or to a signal (False)."""
        recipe, run = self.recipe, self.recipe.run
        pending: list[torch.cuda.Event] = []
        unreported: tuple[torch.Tensor, float] | None = None
        while True:
            elapsed, stop = self.ranks.agree(self.clock.elapsed, self.signal is not None)
            if stop:
                return False
            if (
                schedule.progress(recipe.schedule, self.step, elapsed) >= 1.0
                or self.step == run.stop_after > 0
            ):
                if unreported is not None:
                    self._report(*unreported)
                return True
            scale = schedule.lr_scale(recipe.schedule, self.step, elapsed)
            self._switches(scale)
            tokens, state = next(batches)
            loss = self._one_step(tokens, scale)
            self.step += 1
            self.sampler_state = state
            self.averages.update(self.step, scale)
            if self.hessians is not None and self.ranks.first and self.step % self.hessians.every == 0:
                self._accumulate(tokens)
            if self.ranks.device.type == "cuda":
                # Let the host run one step ahead of the device, no more: the clock stays honest.
                pending.append(torch.cuda.Event())
                pending[-1].record()
                if len(pending) > 1:
                    pending.pop(0).synchronize()
            unreported = (loss, scale)
            if self.step % run.log_every == 0 or self.step <= 3:
                self._report(loss, scale)
                unreported = None
            if (
                run.validate_every
                and self.step % run.validate_every == 0
                and self.data.validation is not None
            ):
                self._validate(scale)
            if run.checkpoint_every and self.step % run.checkpoint_every == 0:
                with self.clock.paused():
                    self.save()

    def _switches(self, scale: float) -> None:
        """Parts that come alive during training."""
        recipe = self.recipe
        if (
            recipe.model.repeat_layers
            and not self.repeat_active
            and self.step >= recipe.schedule.repeat_start
        ):
            self._activate_repeats()
            self.logs.line(f"repeat_layers:on step:{self.step}")
        bits = recipe.compress.qat_bits
        qat.enable(self.model, bits if bits and scale < recipe.compress.qat_below else 0)

    def _accumulate(self, tokens: torch.Tensor) -> None:
        """One pass for the online Hessians (PR 1072), on training data this rank has just used.

        Uncompiled and with eager kernels, since hooks must see each matrix's input. It runs inside the
        training clock: calibration on training data is training (rule B1).
        """
        assert self.hessians is not None
        run = self.recipe.run
        rows = max(1, self.recipe.compress.hessian_tokens // self.recipe.data.context)
        self.model.use_kernels()
        with torch.compiler.set_stance("force_eager"):
            self.hessians.step(self.model, self.step, tokens[:rows, :-1])
        self.model.use_kernels(mlp=run.mlp, attention=run.attention)

    def _activate_repeats(self) -> None:
        self.model.activate_repeats()
        self.repeat_active = True

    def _one_step(self, tokens: torch.Tensor, scale: float) -> torch.Tensor:
        """Forward and backward over the micro-batches, one update; returns the mean loss (device scalar)."""
        self.optimizers.zero_grad()
        total = torch.zeros((), device=tokens.device)
        for part in tokens.split(self.rows):
            loss = self.loss_of(part[:, :-1], part[:, 1:]) / self.micro_batches
            loss.backward()
            total += loss.detach()
        self.optimizers.step(scale, schedule.momentum(self.recipe.optim, self.step))
        return total

    # ---- telling ------------------------------------------------------------------------------

    def _headline(self) -> None:
        recipe, logs, device = self.recipe, self.logs, self.ranks.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
        count = parameters(self.model)
        data = recipe.data
        logs.record(
            event="start", recipe=recipe.as_dict(), recipe_digest=recipe.digest(),
            source_digest=setup.source_digest(), parameters=count, device=name, world=self.ranks.world,
            torch=torch.__version__, python=platform.python_version(), resumed_at=self.step,
            train_tokens=self.data.shards.total, train_shards=[p.name for p in self.data.shards.paths],
        )  # fmt: skip
        for text in (
            f"recipe:{recipe.name} recipe_sha256:{recipe.digest()} source_sha256:{setup.source_digest()}",
            f"Running Python {sys.version.split()[0]} PyTorch {torch.__version__} device:{name}",
            f"model_params:{count}",
            f"world_size:{self.ranks.world} grad_accum_steps:{self.micro_batches}",
            f"train_batch_tokens:{data.batch_tokens} train_seq_len:{data.context} iterations:{recipe.schedule.steps} "
            f"max_wallclock_seconds:{recipe.schedule.seconds:.3f}",
            f"seed:{recipe.run.seed}",
        ):
            logs.line(text)
        logs.say(
            f"recipe {recipe.name}: {count:,} parameters on {name}, "
            f"{self.data.shards.total:,} training tokens, {data.batch_tokens:,} a step"
        )

    def _report(self, loss: torch.Tensor, scale: float) -> None:
        value = float(self.ranks.mean(loss))
        elapsed = self.clock.elapsed
        if value != value:
            raise InputError(f"loss is not a number at step {self.step}; lower the learning rates")
        speed = self.step * self.recipe.data.batch_tokens / max(elapsed, 1e-9)
        mfu = speed * self.flops / (self.peak * self.ranks.world) if self.peak else None
        memory = self._memory()
        validation = self.data.validation
        # The batch's loss in the unit that counts, at the validation text's bytes per token: an estimate.
        bpb = value * validation.bpb_per_nat if validation is not None else None
        self.logs.record(
            step=self.step, loss=value, bpb_estimate=bpb, scale=scale, tokens=self.step * self.recipe.data.batch_tokens,
            elapsed_s=elapsed, tokens_per_s=speed, mfu=mfu, memory_mib=memory,
        )  # fmt: skip
        self.logs.line(
            f"step:{self.step}/{self.recipe.schedule.steps} train_loss:{value:.4f} train_time:{1e3 * elapsed:.0f}ms "
            f"step_avg:{1e3 * elapsed / self.step:.2f}ms"
        )
        note = (
            f"step {self.step} loss {value:.3f}"
            + (f" ~{bpb:.3f} bpb" if bpb else "")
            + f" {speed:,.0f} tok/s"
        )
        note += (f" mfu {mfu:.1%}" if mfu else "") + (f" {memory:,} MiB" if memory else "")
        done = schedule.progress(self.recipe.schedule, self.step, elapsed)
        due: Callable[[], bool] = lambda: self.step % (10 * self.recipe.run.log_every) == 0 or self.step <= 1  # noqa: E731
        self.logs.advance(done, note, due)

    def _validate(self, scale: float, final: bool = False) -> float | None:
        if self.data.validation is None:
            return None
        with self.clock.paused():
            self._synchronize()
            # Other shapes than training's: running them eagerly costs less than compiling for them.
            with torch.compiler.set_stance("force_eager"):
                loss, bpb = self.data.validation.measure(self.model)
        elapsed = self.clock.elapsed
        self.logs.record(
            event="validation", step=self.step, val_loss=loss, bpb=bpb, elapsed_s=elapsed, final=final, scale=scale,
            targets=self.data.validation.targets.size,
        )  # fmt: skip
        self.logs.line(
            f"step:{self.step}/{self.recipe.schedule.steps} val_loss:{loss:.4f} val_bpb:{bpb:.4f} "
            f"train_time:{1e3 * elapsed:.0f}ms step_avg:{1e3 * elapsed / max(self.step, 1):.2f}ms"
        )
        self.logs.say(
            f"step {self.step}: {bpb:.4f} bits per byte on {self.data.validation.targets.size:,} targets"
        )
        return bpb

    def _outcome(self, last: float | None, path: Path | None) -> Outcome:
        memory = self._memory()
        if memory is not None:
            reserved = torch.cuda.max_memory_reserved(self.ranks.device) // 2**20
            self.logs.line(f"peak memory allocated: {memory} MiB reserved: {reserved} MiB")
        if path is not None:
            self.logs.line(
                f"stopping_early: wallclock_cap train_time:{1e3 * self.clock.elapsed:.0f}ms "
                f"step:{self.step}/{self.recipe.schedule.steps}"
                if self.step < self.recipe.schedule.steps
                else f"finished train_time:{1e3 * self.clock.elapsed:.0f}ms step:{self.step}"
            )
        outcome = Outcome(
            steps=self.step, seconds=self.clock.elapsed, first_bpb=self.first_bpb, last_bpb=last,
            interrupted=self.signal, checkpoint=path,
        )  # fmt: skip
        self.logs.record(
            event="end", steps=self.step, elapsed_s=self.clock.elapsed, first_bpb=self.first_bpb, last_bpb=last,
            interrupted=self.signal, memory_mib=memory,
        )  # fmt: skip
        return outcome

    def _memory(self) -> int | None:
        if self.ranks.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.ranks.device) // 2**20

    def _synchronize(self) -> None:
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number  # the step in flight finishes first
