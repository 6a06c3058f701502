"""M1 byte denominator: the score is divided by the original text's UTF-8 bytes.

**What.** The number of bytes behind the score must be the validation text's own. Tables that count a
leading space twice, byte-fallback tokens with three bytes or more, control symbols of a transform as
text, or a custom vocabulary's meta-data with too large entries all make the score too good.

**Why.** Bits per *byte* compares tokenizers only while the bytes are the same.

**Ruling.** README (the metric is tokenizer-agnostic); a merged record was removed for it (#1806,
2026-04-26). Over-counting by 17.7 % is the commonest form (#1698 and its family).

**How it is decided.** By arithmetic on the log: ``val_tokens x val_loss / (ln 2 x val_bpb)`` above or
below the full set's 151.06 to 151.10 million with the full set's token count, on intervals. In the
source: a table that counts a leading space which the evaluation adds again, one that measures the space
mark as three bytes (also where a damaged mark, ``piece.startswith("?")``, takes it off no piece), byte pieces measured by
their printed name or as several bytes, another encoding than UTF-8, bytes that are raised to a least number or multiplied by a
number near one on their way to the divisor, a table that gives tokens without bytes one byte, an evaluation that adds a byte to every ordinary token, a reported score that is divided by a written number of bytes per token or by sums of a table that gives every token the same
number (right for a vocabulary of bytes alone), and one that is divided by the bytes of whole windows of
which each turn scores a later part.

**Look-alikes.** Lossless transforms with a byte sidecar; other tokenizers whose product is right; tables
that count the space themselves, where nothing is added to them; under-counting is wrong too but hurts its
author.

**See also.** D2 (which documents), M2 (lossless transforms), M3 (one global sum).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.assumed_bytes import assumed_bytes
from audit.rules.base import Example, Rule
from audit.rules.byte_table import byte_table
from audit.rules.even_bytes import even_bytes
from audit.rules.floored_bytes import floored_bytes
from audit.rules.papers import distinct
from audit.rules.papers_checks import byte_accounting, right_bytes

RULE = Rule(
    id="M1",
    name="byte-denominator",
    title="The score is divided by the original bytes",
    breach="Score not divided by the original bytes",
    illegal="INVALID",
    authority="MAINT",
    ruling="#1806",
    severity="violation",
    needs=("source", "log"),
)

_SCRIPT = "print('see the log')\n"


def _log(tokens: int, loss: float, bpb: float) -> str:
    return (
        f"val_loader:shards pattern=./data/fineweb_val_*.bin tokens:{tokens}\nmodel_params:1000000\n"
        f"final_int6_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}\n"
    )


_TABLE = """\
import sentencepiece, torch
sp = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
size, lead, edge = torch.zeros(1024), torch.zeros(1024, dtype=torch.bool), torch.ones(1024, dtype=torch.bool)
for t in range(sp.vocab_size()):
    edge[t] = sp.is_control(t)
    piece = sp.id_to_piece(t)
{}
def count(before, target):
    return (size[target] + (lead[target] & ~edge[before])).sum()
print(count(torch.tensor([1]), torch.tensor([2])))
"""
ILLEGAL = [
    Example(
        name="a leading space in the table and in the count",
        code=_TABLE.format(
            "    lead[t] = piece.startswith('\\u2581')\n"
            "    size[t] = 1 if sp.is_byte(t) else len(piece[1:].encode()) + 1 if lead[t] else len(piece.encode())\n"
        ),
        lines=(8,),
    ),
    Example(
        name="byte pieces by their names",
        code=_TABLE.format(
            "    lead[t] = piece.startswith('\\u2581')\n    size[t] = len(piece.lstrip('\\u2581').encode())\n"
        ),
        lines=(8,),
    ),
    Example(
        name="the space mark as three bytes",
        code=_TABLE.format(
            "    lead[t] = piece.startswith('\\u2581')\n"
            "    size[t] = 1 if sp.is_byte(t) else len(piece.encode())\n"
        ),
        lines=(8,),
    ),
    Example(
        name="a space mark that was lost when the script was saved",
        code=_TABLE.format(
            "    if piece.startswith('?'):\n        lead[t], piece = True, piece[1:]\n"
            "    size[t] = 1 if sp.is_byte(t) else len(piece.encode())\n"
        ),
        lines=(9,),
    ),
    Example(
        name="a byte for every token that is no boundary",
        code=_TABLE.replace("(lead[target] & ~edge[before])", "(lead[target] | ~edge[before])").format(
            "    size[t] = 1 if sp.is_byte(t) else len(piece.lstrip('\\u2581').encode())\n"
        ),
        lines=(10,),
    ),
    Example(
        name="a byte for tokens without bytes",
        code=_TABLE.replace("size, lead, edge = torch.zeros(1024)", "size, lead, edge = torch.ones(1024)")
        .replace("    edge[t] = sp.is_control(t)\n", "    if sp.is_control(t):\n        continue\n    edge[t] = False\n")
        .replace("size, lead, edge = torch.ones(1024), ", "size = torch.ones(1024)\nlead, edge = ")
        .format(
            "    lead[t] = piece.startswith('\\u2581')\n"
            "    size[t] = 1 if sp.is_byte(t) else len(piece.lstrip('\\u2581').encode())\n"
        ),
        lines=(3,),
    ),
    Example(
        name="a leading space counted twice: 4.386 bytes a token",
        code=_SCRIPT,
        files=(
            ("train_seed1.log", _log(40_540_160, 3.1, 1.019684)),
            ("submission.json", '{"val_bpb": 1.01968}'),
        ),
        lines=(3,),
    ),
]
LEGAL = [
    Example(
        name="each piece once",
        code=_TABLE.format(
            "    lead[t] = piece.startswith('\\u2581')\n"
            "    size[t] = 1 if sp.is_byte(t) else len(piece.lstrip('\\u2581').encode())\n"
        ),
    ),
    Example(
        name="the same tokenizer with the right table",
        code=_SCRIPT,
        files=(
            ("train_seed1.log", _log(40_540_160, 3.1, 1.20012)),
            ("submission.json", '{"val_bpb": 1.20012}'),
        ),
    ),
    Example(
        name="a tokenizer of one's own whose product is right",
        code=_SCRIPT,
        files=(
            ("train_seed1.log", _log(76_632_064, 1.9, 1.390381)),
            ("submission.json", '{"val_bpb": 1.39038}'),
        ),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    stated = False
    logged = list(distinct(byte_accounting(RULE, ctx)))
    shown = any(isinstance(item, Obligation) and item.status == "holds" for item in logged)
    if "source" in ctx.available:
        floored = [] if shown else list(floored_bytes(RULE, ctx))
        yield from floored
        for item in (*byte_table(RULE, ctx, right_bytes), *assumed_bytes(RULE, ctx), *even_bytes(RULE, ctx)):
            if shown and isinstance(item, Obligation) and item.status == "undetermined":
                continue  # the logs show that the assumed number is the right one
            stated = True
            if not floored or isinstance(item, Finding) or item.status != "holds":
                yield item
    for item in logged:
        stated = True
        yield item
    if not stated:
        yield Obligation(
            rule=RULE.id, status="not-applicable",
            reason="no log prints a validation token count with loss and score, and no table of bytes was found",
        )  # fmt: skip
