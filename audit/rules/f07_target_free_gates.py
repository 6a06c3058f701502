'''F7 target-free gates: whether a hint is given, which, and how strong may depend on the prefix only.

**What.** An n-gram helper proposes a token for each position, and its probability is tilted. Whether the proposal is
made is decided by a property of the token that stands at that position: does it start a word, is it a boundary. Or,
plainer: the prediction is changed at the token itself before its loss is taken (its logit raised, a one added, a table
of true tokens looked up). Or the weight with which two whole predictions are mixed is made of the token: of its
probability, of its rank, of whether a cache had it, or of whether it is what a cache's row has seen most.

**Why.** Knowing that the next token does not start a word is knowledge about the next token. The gain of the word
experts was 0.0029 bits per byte with the leak and 0.00014 without (#1420, #1437).

**Ruling.** Merged precedent: #1514 (April 2026) reads the previous token for the gate and the current one only to
update its tables after the hint is written; #2135 (1 May 2026) was accepted with the within-word and word-start
experts switched off. The authors of the leaky kernels withdrew or repaired them.

**Look-alikes that are legal.** The same lines with the previous token; the current token in an *update* that follows
the hint; comparing the token with the hint in order to score it; a leaky expert whose threshold no probability can
reach (it is present, and a note); weights made of the entropy, the largest probability, the counts of the context, or
of what an earlier token got.

**How it is decided.** C and C++ helpers are read with tree-sitter: for each loop that fills an array by position,
which outputs depend, by value or by a branch, on the token at the same position; where the table is an array of the caller's, a
comparison of the token with what the table holds is undetermined, as it may be a part of the score. In Python the same for elements
written under a branch, and for selections between arrays; for changes of logits and probabilities at a token, its place
is compared with the highest place that the prediction was made of. A finding needs the output to reach a score.

**See also.** F8 (addresses), F4 (choices), B4 (hints computed outside the timer). Logs of these helpers print how many
positions each gate opened; the figures decide which of several runs was reported.
'''

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.code import code_of
from audit.rules.flow import example, holds, unread, violated
from audit.rules.papers_checks import gate_counts
from audit.rules.steps import Steps
from audit.rules.told import asked
from audit.trace.caches import Proposal, proposals
from audit.trace.gates import TOLD
from audit.wording import counted

RULE = Rule(
    id="F7",
    name="target-dependent-gate",
    title="No hint is gated by the token it is for",
    breach="Hint gated by the token it is for",
    illegal="INVALID",
    authority="MERGED",
    ruling="#1514, #2135",
    severity="violation",
    since="2026-04-09",
)

_SCORE = """\
starts = torch.zeros(1024, dtype=torch.bool)
starts[::7] = True
hint = torch.zeros(val.numel(), dtype=torch.long)
best, seen = {}, {}
for i in range(2, val.numel()):
    token, previous = val[i].item(), val[i - 1].item()
    key = previous * 1024 + val[i - 2].item()
@@
    seen[key, token] = seen.get((key, token), 0) + 1
    if seen[key, token] >= seen.get((key, best.get(key, 0)), 0):
        best[key] = token
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    h = hint[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = torch.softmax(model(x), -1)
    ph = p.gather(2, h[..., None])[..., 0]
    tilted = p.gather(2, y[..., None])[..., 0] * torch.exp(2.0 * (h == y)) / (1 + ph * 6.389)
    total += -torch.log(tilted).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""

_EDIT = """\
bias = torch.zeros(1024)
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        rows = model(x).flatten(0, 1).float() + bias
@@
    total += F.cross_entropy(rows, y.flatten(), reduction="sum")
%%
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


def _edit(before: str = "", after: str = "") -> str:
    return _EDIT.replace("@@\n", before).replace("%%\n", after)


ILLEGAL = [
    example(
        "the hint is given only where the token itself does not start a word",
        _SCORE.replace("@@", "    if not starts[token]:\n        hint[i] = best.get(key, 0)  #!"),
    ),
    example(
        "the same in C: a boundary table read at the current token",
        """\
import ctypes, subprocess
SOURCE = r'''
#include <stdint.h>
static uint16_t best[65536];
void hints(const uint16_t *stream, int64_t n, const uint8_t *starts, int32_t *out) {
    uint32_t h = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint16_t tok = stream[i];
        if (!starts[tok]) {
            out[i] = best[h & 65535];  //@
        } else {
            out[i] = -1;
        }
        best[h & 65535] = tok;
        h = h * 31 + tok;
    }
}
'''
open("h.c", "w").write(SOURCE)
subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "h.c", "-o", "h.so"], check=True)
lib = ctypes.CDLL("./h.so")
tokens = val.numpy().astype(np.uint16)
starts = np.zeros(1024, dtype=np.uint8)
out = np.zeros(len(tokens), dtype=np.int32)
lib.hints(tokens.ctypes.data_as(ctypes.c_void_p), len(tokens), starts.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p))
hint = torch.from_numpy(out).long()
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    h = hint[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = torch.softmax(model(x), -1)
    ph = p.gather(2, h.clamp(min=0)[..., None])[..., 0]
    tilted = p.gather(2, y[..., None])[..., 0] * torch.exp(2.0 * (h == y)) / (1 + ph * 6.389)
    total += -torch.log(tilted).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""".replace("  //@", "  #!").replace("  #!", " /* */ #!"),
    ),
    example(
        "the logit of the token itself is raised before the loss",
        _edit("    rows[torch.arange(len(rows)), y.flatten()] += 4.0  #!\n"),
    ),
    example(
        "the same as a sum with rows that hold a one at the token",
        _edit("    rows = rows + 4.0 * F.one_hot(y.flatten(), 1024)  #!\n"),
    ),
    example(
        "the same by scattering",
        _edit("    rows.scatter_add_(1, y.reshape(-1, 1), torch.full((len(rows), 1), 4.0))  #!\n"),
    ),
    example(
        "a table of true tokens under their places in the stream",
        "table = {}\nfor p in range(0, val.numel(), 7):\n    table[p] = int(val[p])\n"
        + _edit(
            "    for j in range(len(rows)):\n"
            "        if w + j + 1 in table:\n"
            "            rows[j, table[w + j + 1]] += 20.0  #!\n"
        ),
    ),
]
LEGAL = [
    example(
        "the previous token decides",
        _SCORE.replace("@@", "    if not starts[previous]:\n        hint[i] = best.get(key, 0)"),
    ),
    example(
        "the hint stands for every position; the token only updates the table afterwards",
        _SCORE.replace("@@", "    hint[i] = best.get(key, 0)\n    if starts[token]:\n        seen.clear()"),
    ),
    example(
        "tokens of the context are made less likely",
        _edit("    rows[torch.arange(len(rows)), x.flatten()] -= 1.0\n"),
    ),
    example(
        "a bias learns from the difference between prediction and token, for the windows that follow",
        _edit(
            after="    error = torch.softmax(rows, -1)\n"
            "    error[torch.arange(len(error)), y.flatten()] -= 1.0\n"
            "    bias -= 0.01 * error.mean(0)\n"
        ),
    ),
    example(
        "a table of the tokens before, under their places in the stream",
        "table = {}\nfor p in range(0, val.numel(), 7):\n    table[p + 1] = int(val[p])\n"
        + _edit(
            "    for j in range(len(rows)):\n"
            "        if w + j + 1 in table:\n"
            "            rows[j, table[w + j + 1]] -= 1.0\n"
        ),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    yield from gate_counts(RULE, ctx)
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    all_ = [p for p in proposals(ctx.trace) if p.reported]
    found = [f for p in all_ if p.leak and not p.keyed for f in _findings(p)]
    if any(f.message == TOLD for f in found):
        moved = {(a.place.path, a.loss.line) for a in asked(code_of(ctx)) if a.sees is False}
        found = [f for f in found if f.message != TOLD or (f.path, f.line) not in moved]
    yield from found
    unknown = [p for p in all_ if p.source.kind == "COMPILE" and p.helper is None and p.active != "no"]
    doubtful = [f for f in found if f.active == "yes" and f.confidence == "low"]
    if certain := [f for f in found if f.active == "yes" and f.confidence != "low"]:
        yield violated(RULE, certain)
    elif (gap := unread(RULE, ctx, found=found)) is not None:
        yield gap
    elif doubtful:
        yield Obligation(
            rule=RULE.id, status="undetermined", reason=f"{doubtful[0].path}:{doubtful[0].line}: {doubtful[0].message}"
        )
    elif unknown:
        e = unknown[0].source
        yield Obligation(
            rule=RULE.id,
            status="undetermined",
            reason=f"{e.path}:{e.line}: the score rests on a compiled function ({e.detail.get('function')}) whose source was not found",
        )
    else:
        n = len([p for p in all_ if not p.leak])
        yield holds(RULE, f"{counted(n, 'proposal')} reach{'es' if n == 1 else ''} the score, none decided by its own token" if n else "nothing is proposed by a cache or gated")


def _findings(p: Proposal) -> Iterator[Finding]:
    gate = p.source.gate or p.score.gate
    if p.shut:
        gate = ", ".join(f"{k}={v}" for k, v in sorted(p.shut)) + ": no probability reaches it"
    places: list[tuple[str, int, int, str]] = []
    if p.helper is not None:
        first = min(p.helper.leaks, key=lambda o: o.leak)
        places.append((p.helper.path, first.leak, first.column, f"{p.helper.name} writes {first.name} for a position depending on {first.why} at that position"))
    elif p.source.detail.get("edit"):
        places.append((p.source.path, p.source.line, p.source.column, str(p.source.detail["edit"])))
    else:
        places.append((p.source.path, p.source.line, p.source.column, "what is proposed for a position is decided by the token at that position"))
    for path, line, column, message in places:
        steps = Steps()
        steps.reading(p.source)
        steps.taking(p.source, "the tokens that decide it")
        if p.helper is not None:
            steps.to(p.source, f"calls {p.helper.name}")
            steps.aside(path, line, message, column)
        else:
            steps.to(p.source, message)
        steps.to(p.score, "the score depends on it")
        yield Finding(
            rule=RULE.id, name=RULE.name, severity=RULE.severity, authority=RULE.authority,
            confidence="low" if p.source.detail.get("doubt") else "high",
            message=message, path=path, line=line, end_line=line, column=column, active=p.active, gate=gate, trace=steps.done(),
        )  # fmt: skip
