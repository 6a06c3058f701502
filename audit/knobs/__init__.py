"""What the reported run set: the values of a submission's environment knobs and options.

A verdict concerns the submission as reported. Code that a knob keeps closed is judged by what the
submitted configuration says about that knob, and the configuration is found where people leave it:
in logs, README commands, run scripts, ``submission.json`` and launchers, in this order of standing.
Defaults, also those that depend on other knobs, come from presets or are declared twice, are left
to the trace, which evaluates them as the script does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from audit import ir
from audit.knobs import commands, logs, titles
from audit.knobs.declared import declarations
from audit.knobs.model import WORLD_SIZE, Claim, Declaration, Knobs, KnobValue
from audit.source.files import SubmissionFiles

__all__ = ["Claim", "Declaration", "KnobValue", "Knobs", "alternatives", "other_reading", "resolve"]


def resolve(
    files: SubmissionFiles,
    program_sources: Mapping[str, str],
    env: Mapping[str, str],
    facts: Any = None,
    env_defaults: Mapping[str, str] | None = None,
    modules: Mapping[str, ir.Module] | None = None,
) -> Knobs:
    """The knobs of one submission.

    ``program_sources``: peeled texts of the program. ``env``: overrides by the user, which beat
    everything. ``env_defaults``: what a wrapper sets before its payload runs. ``modules``: the lowered
    program; with it, log lines that a single branch prints count as statements. ``facts``: the figures
    that the papers state, to tell which score was put forward.
    """
    declared = declarations(program_sources)
    stated: dict[str, list[Claim]] = {}
    typed = list(commands.claims(files, declared))
    for claim in (*logs.claims(files, declared, modules or {}, typed), *typed):
        stated.setdefault(claim.name, []).append(claim)
    values = {name: _settle(found) for name, found in stated.items()}
    if not stated.keys() - {WORLD_SIZE} and not files.logs():
        values |= dict(titles.doubtful(files, declared, facts or ()))
    for name, value in (env_defaults or {}).items():
        # A wrapper that assigns beats the command line only where the command line is silent.
        values.setdefault(name, KnobValue(value=value, source="wrapper"))
    for name, value in env.items():
        values[name] = KnobValue(value=value, source="env")
    return Knobs(values=values, declared=declared, claims={k: tuple(v) for k, v in stated.items()})


def alternatives(knobs: Knobs) -> Iterator[Knobs]:
    """Other configurations that the papers state, for when the settled one cannot be the run that was scored.

    The settled values take the best statement for each knob; where a README trains with one command and evaluates
    with another, no run had them all. First each command by itself, the last one first, then what the logs print,
    and where they print nothing the code's own defaults. Overrides by the user stay.
    """
    fixed = {name: v for name, v in knobs.values.items() if v.source in ("env", "wrapper")}
    groups: dict[tuple[str, int], dict[str, KnobValue]] = {}
    printed: dict[str, KnobValue] = {}
    for name, stated in knobs.claims.items():
        for claim in stated:
            value = KnobValue(value=claim.value, source=claim.source, path=claim.path, line=claim.line)
            if claim.source == "log":
                printed.setdefault(name, value)
            elif claim.rank > commands.PROSE:
                groups.setdefault((claim.path, claim.line), {})[name] = value
    several = [group for _place, group in sorted(groups.items(), reverse=True) if len(group.keys() - {WORLD_SIZE}) >= 2]
    launched = {name: v for name, v in knobs.values.items() if name == WORLD_SIZE}
    # What a run printed stands: defaults that it contradicts are no configuration that was run.
    for values in (*several[:3], printed):
        chosen = {**launched, **values, **fixed}
        if {k: v.value for k, v in chosen.items()} != {k: v.value for k, v in knobs.values.items()}:
            yield Knobs(values=chosen, declared=knobs.declared, claims=knobs.claims)


def other_reading(knobs: Knobs, names: Iterable[str]) -> Knobs:
    """The same configuration with each of the doubtful ``names`` at the value that the next most statements give it.

    What only a title names goes back to the code's default.
    """
    values = dict(knobs.values)
    for name in names:
        chosen, stated = values.pop(name), knobs.claims.get(name, ())
        best = max((c.rank for c in stated), default=0)
        rest = [c for c in stated if c.rank == best and _normal(c.value) != _normal(chosen.value)]
        if rest:
            values[name] = _settle(rest)
    return Knobs(values=values, declared=knobs.declared, claims=knobs.claims)


def _settle(found: Iterable[Claim]) -> KnobValue:
    """The value of the statements with the highest standing; ambiguous where these disagree."""
    best = max(c.rank for c in found)
    top = [c for c in found if c.rank == best]
    counts = Counter(_normal(c.value) for c in top)
    (value, votes), *others = counts.most_common()
    chosen = next(c for c in top if _normal(c.value) == value)
    # One stray run among several does not make the reported configuration doubtful.
    ambiguous = any(count * 3 > votes for _other, count in others)
    return KnobValue(
        value=chosen.value, source=chosen.source, path=chosen.path, line=chosen.line, ambiguous=ambiguous
    )


def _normal(value: str) -> str:
    """Spellings of one number are one value."""
    try:
        return repr(float(value))
    except ValueError:
        return value
