"""F12 look-back: a one-token look-back does not cross a document's first token.

**What.** In a packed stream each document follows another. A gate that adds the previous token's
activations (SmearGate and its kin) gives a document's first token a share of the document before it.

**Why.** Documents are scored as if each stood alone; what crosses their border is a difference between
how records were made, not a look at later tokens.

**Ruling.** Maintainer in #1797 (audit comment of late April 2026): the previous-token term is masked where
the current token is BOS, in every forward path; without it a submission is kept off the leaderboard.
**Disputed**: the previous token is part of the prefix, so causality is not touched (#1988 and others), and
earlier records with the gate and without the mask stand (#1667). A warning therefore, never a violation.

**Look-alikes that are legal.** The same gate multiplied by ``input_ids[:, 1:] != BOS``; a hashed embedding of
token pairs, which is an input feature; attention across documents, which nobody objects to.

**How it is decided.** A value shifted by one along the time axis of activations is added to the unshifted
one, and neither the function nor the values it is given compare tokens with anything.

**See also.** F17 (later tokens through the architecture).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.code import Place, code_of, finding
from audit.rules.flow import example, holds
from audit.rules.sequence import Sequences, sequences_of

RULE = Rule(
    id="F12",
    name="look-back",
    title="A look-back stops at the start of a document",
    breach="Look-back across the start of a document",
    illegal="BLOCKED",
    authority="DISPUTED",
    ruling="#1797",
    severity="violation",
    since="2026-04-27",
)

_MODEL = """\
class Smeared(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.g = nn.Parameter(torch.zeros(64))
    def forward(self, ids):
        x = self.emb(ids)
{}
        return self.head(x)

print(f"val_bpb:{{evaluate(Smeared(), val):.4f}}")
"""
ILLEGAL = [
    example(
        "the previous token everywhere",
        _MODEL.format("        x = torch.cat([x[:, :1], x[:, 1:] + self.g * x[:, :-1]], dim=1)  #!"),
    ),
    example(
        "a shifted copy with zeros in front",
        _MODEL.format("        x = x + self.g * F.pad(x[:, :-1], (0, 0, 1, 0))  #!"),
    ),
]
LEGAL = [
    example(
        "masked at the first token",
        _MODEL.format(
            "        inner = (ids[:, 1:] != 1).unsqueeze(-1)\n"
            "        x = torch.cat([x[:, :1], x[:, 1:] + self.g * x[:, :-1] * inner], dim=1)"
        ),
    ),
    example(
        "pairs of input tokens, hashed",
        _MODEL.format("        x = x + self.emb(F.pad(ids[:, 1:] * 31 + ids[:, :-1], (1, 0)) % 1024)"),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    code = code_of(ctx)
    along = sequences_of(code)
    found = []
    for place in code.places:
        if place.function is None or not along.touches(place) or _compares(place):
            continue
        for node in place.nodes(ir.BinOp):
            if node.op == "+" and _mixes(along, place, node):
                found.append(
                    finding(
                        RULE,
                        code,
                        place,
                        node,
                        "every token takes a share of its predecessor, at document starts too",
                    )
                )
                break
    yield from found
    yield holds(RULE, "see the warning" if found else "no unmasked look-back by one token was found")


def _compares(place: Place) -> bool:
    """Does the function mask by comparing tokens, or is it given a mask."""
    return any(op in ("==", "!=") for node in place.nodes(ir.Compare) for op in node.ops) or any(
        isinstance(node.func, ir.Attr) and node.func.attr in ("masked_fill", "where", "ne", "eq") for node in place.nodes(ir.Call)
    )


def _mixes(along: Sequences, place: Place, node: ir.BinOp) -> bool:
    """``x[:, 1:] + … x[:, :-1]``, or ``x + … pad(x[:, :-1])``."""
    before = [
        n
        for n in ir.walk(node)
        if isinstance(n, ir.Sub) and _slice(n.index) == "before" and along.along(place, n.value)
    ]
    after = [
        n
        for n in ir.walk(node)
        if isinstance(n, ir.Sub) and _slice(n.index) == "after" and along.along(place, n.value)
    ]
    if not before:
        return False
    return bool(after) or along.along(place, node.left) or along.along(place, node.right)


def _slice(index: Any) -> str:
    if not isinstance(index, ir.Collection) or len(index.elts) < 2 or not isinstance(index.elts[1], ir.Slice):
        return ""
    time = index.elts[1]
    low, high = _value(time.lower), _value(time.upper)
    return "before" if (low, high) == (None, -1) else "after" if (low, high) == (1, None) else ""


def _value(node: Any) -> Any:
    if isinstance(node, ir.UnaryOp) and node.op == "-" and isinstance(node.operand, ir.Const):
        return -node.operand.value
    return node.value if isinstance(node, ir.Const) else None if node is None else ...
