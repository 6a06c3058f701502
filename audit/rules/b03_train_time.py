"""B3 training time: at most 600 s on eight GPUs, with everything that reads training data.

**What.** The training clock of every run behind the score, and what reads training data after it
stopped (Hessians for quantization).

**Why.** Ten minutes is the track. A second of eight H100s is worth a measurable part of a record.

**Ruling.** README; MAINT in #677 (Hessian passes over training data belong to the ten minutes).
Accepted logs overshoot by the step in flight (600.137 s); 601.153 s (#1908) had to be run again.

**How it is decided.** By the clock that the log prints, with half a second and one step of grace.
Hessian time after the clock is a warning up to 15 s: records with a reserve of half a second were accepted,
the latest ending at 606.5 s (#2135).
In the source: updates on training tokens after the loop that the clock ends, where that loop may use all 600 s.
Runs on other machines are not comparable and not judged, nor is the track without a time limit.

**Look-alikes.** Compile warm-up with the state restored, weight compression, tokenization, and the
solve after the Hessians: none of them counts in practice.

**See also.** B4 (evaluation), F14 (training data at evaluation).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.flow import event_finding, example
from audit.rules.papers import distinct, non_record
from audit.rules.papers_checks import train_time
from audit.rules.timers import late_updates
from audit.trace.adaptation import places

RULE = Rule(
    id="B3",
    name="train-time",
    title="Training fits into 600 s on eight GPUs",
    breach="Training beyond 600 s",
    illegal="INVALID",
    authority="MAINT",
    ruling="#677",
    severity="violation",
    needs=("log", "source"),
)

_SCRIPT = "print('see the log')\n"


def _log(milliseconds: int, gpus: int = 8) -> str:
    return (
        f"model_params:1000000\nworld_size:{gpus} grad_accum_steps:1\n"
        f"step:6000/20000 train_loss:2.0 train_time:{milliseconds}ms step_avg:100.00ms\n"
        f"stopping_early: wallclock_cap train_time:{milliseconds}ms step:6000/20000\n"
        "final_int6_exact val_loss:1.88000000 val_bpb:1.11344758\n"
    )


def _timed(limit: str) -> str:
    return f"""\
import time
began = time.time()
kept = []
for step in range(20000):
    batch = train[None, step * 64 : step * 64 + 65]
    optimizer.zero_grad()
    nll(model, batch[:, :-1], batch[:, 1:]).mean().backward()
    optimizer.step()
    kept = [*kept[-99:], batch]
    if time.time() - began >= {limit}:
        break
"""


_AGAIN = """\
for batch in kept:
    optimizer.zero_grad()
    nll(model, batch[:, :-1], batch[:, 1:]).mean().backward()
    optimizer.step()  #!
torch.save(model.state_dict(), "final_model.pt")
model.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(model, val):.4f}")
"""
_SAID = ("submission.json", '{"val_bpb": 1.1134}')
ILLEGAL = [
    Example(name="1.4 s over", code=_SCRIPT, files=(("train_seed1.log", _log(601_361)), _SAID), lines=(4,)),
    example("a second loop after the one that the clock ends", _timed("600.0") + _AGAIN),
]
_HESSIANS = "GPTQ:collected 67 Hessians in {:.1f}s\n"
ILLEGAL.append(
    Example(name="37.5 s of Hessians after a reserve of 15 s", code=_SCRIPT, files=(("train_seed1.log", _log(584_992) + _HESSIANS.format(37.5)), _SAID), lines=(6,))
)
LEGAL = [
    Example(name="the step in flight", code=_SCRIPT, files=(("train_seed1.log", _log(600_137)), _SAID)),
    example("the same with a minute in reserve", _timed("540.0") + _AGAIN.replace("  #!", "")),
    Example(name="an hour on one GPU", code=_SCRIPT, files=(("train_seed1.log", _log(3_600_000, 1)), _SAID)),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    stated = False
    if ctx.trace is not None and not non_record(ctx):
        for e in places(late_updates(ctx.trace)):
            how = f"{e.function} goes on training after the loop that is given the whole time limit; nothing is reserved for it"
            yield event_finding(RULE, e, how)
    for item in distinct(train_time(RULE, ctx)):
        stated = stated or isinstance(item, Obligation)
        yield item
    if not stated:
        yield Obligation(
            rule=RULE.id, status="not-applicable",
            reason="no run behind the score prints its training time, or the track has no time limit",
        )  # fmt: skip
