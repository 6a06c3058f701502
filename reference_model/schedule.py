"""How far training is, and what learning rate, momentum and sampling follow from it.

Pure functions of (step, elapsed seconds): the trainer keeps the clock, nothing here reads one.
"""

from __future__ import annotations

import math

from reference_model.config import DataConfig, OptimConfig, ScheduleConfig


def progress(config: ScheduleConfig, step: int, elapsed: float) -> float:
    """Share of the run that is over, 0 to 1: by steps or by the clock, whichever is further on."""
    done = step / config.steps
    if config.seconds:
        done = max(done, elapsed / config.seconds)
    return min(1.0, done)


def remaining_share(config: ScheduleConfig, step: int, elapsed: float) -> float:
    """What is left of the warm-down phase: 1 before it starts, 0 at the end.

    Wallclock-adaptive (PR 1171): with a time limit the length of the warm-down is ``warmdown`` steps
    at the pace measured so far, and what is left is read off the clock, so a slow machine starts it
    at the step where it will just have time to finish.
    """
    by_steps = config.warmdown_fraction * config.steps if config.warmdown_fraction else config.warmdown
    share = (config.steps - step) / by_steps if by_steps else math.inf
    if config.seconds and step > 0:
        pace = elapsed / step
        length = (
            config.warmdown_fraction * config.seconds if config.warmdown_fraction else config.warmdown * pace
        )
        # A warm-down longer than the whole run would start below full rate and never reach it.
        if length > 0:
            share = min(share, (config.seconds - elapsed) / length)
    return max(0.0, min(1.0, share))


def lr_scale(config: ScheduleConfig, step: int, elapsed: float) -> float:
    """Factor on every learning rate at this step.

    linear: the remaining share r. sqrt: 1 - sqrt(1 - r), which falls fast at first and flattens out.
    """
    left = remaining_share(config, step, elapsed)
    scale = left if config.shape == "linear" else 1.0 - math.sqrt(1.0 - left)
    scale = max(config.floor, scale)
    if config.warmup:
        scale *= min(1.0, (step + 1) / config.warmup)
    return scale


def momentum(config: OptimConfig, step: int) -> float:
    """Muon's momentum, warmed up linearly."""
    share = min(1.0, step / config.momentum_warmup) if config.momentum_warmup else 1.0
    return (1 - share) * config.momentum_start + share * config.momentum


def shard_alpha(config: DataConfig, done: float) -> float:
    """Exponent of the shard weights: 0.90 - 0.40 * progress with the defaults (PR 1171)."""
    return config.alpha_start + (config.alpha_end - config.alpha_start) * done
