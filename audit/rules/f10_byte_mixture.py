'''F10 byte mixtures: a token's probability may not be spread over its bytes and mixed there.

**What.** The loss of a token is divided by the number of its bytes; each byte then gets the model's probability
p^(1/n), which is mixed with a byte-level model (PPM-D, context trees) that updates as it reads; the mixture's loss is
the reported figure.

**Why.** The shares belong to the token that was realised: both n and p^(1/n) depend on it, so what is mixed is not a
distribution over anything that was fixed before the token was read. A true byte marginal sums over all tokens that begin
with the bytes read so far; its gain was 0.021 where the spread form claimed ten times as much (#1916).

**Ruling.** Maintainer in #2103 (1 May 2026): "it scores the realized byte sequence rather than providing a full
normalized distribution at the official scoring point"; #1902 excludes "PPM-D/byte-mixture C2"; #2039 not valid.

**Look-alikes that are legal.** Dividing a total loss by a total number of bytes (that is bits per byte); per-document
figures; byte marginals over the whole vocabulary (#1916).

**How it is decided.** A loss divided by a number that a table holds for the same token, in Python or in a compiled
helper, whose result is mixed with table statistics and scored again.

**See also.** F9 (one distribution), F7 (gates), F8 (addresses).
'''

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import example, holds, unread, violated
from audit.rules.steps import spread
from audit.trace import Trace
from audit.trace.caches import Spread, byte_mixtures

RULE = Rule(
    id="F10",
    name="byte-mixture",
    title="No token's loss is spread over its bytes and mixed there",
    breach="Token's loss spread over its bytes and mixed there",
    illegal="INVALID",
    authority="MAINT",
    ruling="#2103, #1902, #2039",
    severity="violation",
    since="2026-05-01",
)

_SCORED = """\
import math, sentencepiece as spm
sp = spm.SentencePieceProcessor(model_file="tok.model")
pieces = [sp.id_to_piece(i).encode() for i in range(sp.vocab_size())]
targets, losses = [], []
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        losses.append(nll(model, x, y)[0])
    targets.append(y[0])
losses, targets = torch.cat(losses).numpy(), torch.cat(targets).numpy()
"""

ILLEGAL = [
    example(
        "every byte gets an equal share of the token's loss, mixed with an order-2 byte table",
        _SCORED
        + """\
table, history, total, count = {}, b"", 0.0, 0
for i in range(len(targets)):
    piece = pieces[int(targets[i])]
    share = -losses[i] / len(piece)  #!
    for byte in piece:
        row = table.setdefault(history, {})
        seen = row.get(byte, 0)
        q = (seen + 0.5) / (sum(row.values()) + 128)
        total -= math.log(0.7 * math.exp(share) + 0.3 * q)
        row[byte] = seen + 1
        history = (history + bytes([byte]))[-2:]
        count += 1
print(f"val_bpb:{total / math.log(2) / count:.4f}")
""",
    ),
    example(
        "the same with arrays",
        _SCORED
        + """\
size = np.array([len(p) for p in pieces])
n = size[targets]
share = np.repeat(-losses / n, n)  #!
text = b"".join(pieces[int(t)] for t in targets)
table, history, total = {}, b"", 0.0
for i in range(len(text)):
    row = table.setdefault(history, {})
    seen = row.get(text[i], 0)
    q = (seen + 0.5) / (sum(row.values()) + 128)
    total -= math.log(0.7 * math.exp(share[i]) + 0.3 * q)
    row[text[i]] = seen + 1
    history = (history + text[i : i + 1])[-2:]
print(f"val_bpb:{total / math.log(2) / len(text):.4f}")
""",
    ),
    example(
        "every byte gets the root of the token's probability",
        _SCORED
        + """table, history, total, count = {}, b"", 0.0, 0
for i in range(len(targets)):
    piece = pieces[int(targets[i])]
    each = max(math.exp(-losses[i]), 1e-12) ** (1.0 / len(piece))  #!
    for byte in piece:
        row = table.setdefault(history, {})
        seen = row.get(byte, 0)
        total -= math.log(0.7 * each + 0.3 * (seen + 0.5) / (sum(row.values()) + 128))
        row[byte] = seen + 1
        history = (history + bytes([byte]))[-2:]
        count += 1
print(f"val_bpb:{total / math.log(2) / count:.4f}")
""",
    ),
]
LEGAL = [
    example(
        "bits per byte of every document, printed",
        _SCORED
        + """\
size = np.array([len(p) for p in pieces])
for d in range(0, len(targets), 4096):
    part = losses[d : d + 4096].sum() / math.log(2) / size[targets[d : d + 4096]].sum()
    print(f"document {d} val_bpb:{part:.4f}")
print(f"val_bpb:{losses.sum() / math.log(2) / size[targets].sum():.4f}")
""",
    ),
    example(
        "a token-level mixture that is one distribution",
        """\
follow = torch.ones(1024, 1024)
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = torch.softmax(model(x)[0], -1)
    q = follow[x[0]] / follow[x[0]].sum(-1, keepdim=True)
    mixed = 0.9 * p + 0.1 * q
    total += -torch.log(mixed.gather(1, y[0][:, None])).sum()
    follow.index_put_((x[0], y[0]), torch.ones(1024), accumulate=True)
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    found = [_finding(ctx.trace, x) for x in byte_mixtures(ctx.trace) if x.reported]
    yield from found
    if any(f.active == "yes" for f in found):
        yield violated(RULE, found)
    else:
        yield unread(RULE, ctx, found=found) or holds(RULE, "no token's loss is divided over its bytes on the way to another score")


def _finding(trace: Trace, x: Spread) -> Finding:
    e = x.spread
    helper = e.detail.get("helper")
    message = "a token's loss is divided by the number of its bytes, mixed with a byte model and scored again"
    path, line, column = e.path, e.line, e.column
    if helper is not None:
        path, line, column = helper.path, helper.spreads[0], helper.columns.get(helper.spreads[0], 0)
    gate = e.gate or (x.score.gate if x.score is not None else None)
    return Finding(
        rule=RULE.id, name=RULE.name, severity=RULE.severity, authority=RULE.authority, confidence="high",
        message=message, path=path, line=line, end_line=line, column=column, active=x.active, gate=gate, trace=spread(trace, x).done(),
    )  # fmt: skip
