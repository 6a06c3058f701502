"""M2 lossless: a text transform before tokenization can be undone.

**What.** Documents are lower-cased, case-folded or otherwise thinned out before they become tokens, or
the tokenizer's own normalisation folds case.

**Why.** The score is bits per byte of the *original* text. A transform that loses the difference between
two texts compresses another text than the one that is counted.

**Ruling.** Disputed. #1604 asked and was not answered; a participant's reading is that the exact bytes of
the validation documents must be reproducible from the tokens. Reversible transforms with a byte sidecar
are merged (#1729, #1736). No case-folded submission was listed (#1578, #1585, #1670, #1707).

**Look-alikes that are legal.** Case moved into marker symbols that can be moved back; lower-casing of
names, options and log lines; SentencePiece's standard ``nmt_nfkc`` normalisation, tolerated everywhere.

**How it is decided.** In the submission's scripts, data preparation included: a call of ``lower`` or
``casefold`` whose result is what an encoder is given, or a tokenizer trained with a folding rule.

**See also.** M1 (which bytes are counted), D1 (data preparation).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from audit import ir
from audit.context import Context
from audit.lower import Unparsable, lower
from audit.model import Finding, Obligation, Step
from audit.rules.base import Example, Rule
from audit.rules.code import code_of
from audit.rules.flow import holds

RULE = Rule(
    id="M2",
    name="lossless",
    title="The text can be restored from its tokens",
    breach="Text that its tokens do not restore",
    illegal="GREY",
    authority="DISPUTED",
    severity="violation",
    needs=(),
    since="2026-04-13",
)
_FOLDS = frozenset({"lower", "casefold", "upper", "swapcase"})
_ENCODES = frozenset({"encode", "encode_batch", "encode_ordinary", "encode_ordinary_batch", "EncodeAsIds",
                      "encode_as_ids", "Encode", "tokenize"})  # fmt: skip
_FOLD = re.compile(rf"\.\s*(?:{'|'.join(sorted(_FOLDS))})\s*\(\s*\)")
_FOLDING_RULE = re.compile(r"nm?t?_?nfkc_cf|nfkc_cf")
MAX_SCRIPTS = 40
#: together; a folder of forty copies of a training script is no data preparation
MAX_CHARACTERS = 600_000

_PREPARE = (
    "import sys, sentencepiece\n"
    "sp = sentencepiece.SentencePieceProcessor(model_file=sys.argv[2])\n"
    "ids = []\n"
    "for text in open(sys.argv[1], encoding='utf-8'):\n"
    "    ids += sp.encode({})\n"
    "print(len(ids))\n"
)
_SCRIPT = "import torch\nprint(torch.__version__)\n"
ILLEGAL = [
    Example(
        name="documents in lower case", code=_SCRIPT, lines=(5,), files=(("prepare_data.py", _PREPARE.format("text.lower()")),)
    ),
    Example(
        name="folded through a name",
        code=_PREPARE.replace("    ids += sp.encode({})\n", "    plain = text.casefold()\n    ids += sp.encode(plain)\n"),
        lines=(5,),
    ),
]  # fmt: skip
LEGAL = [
    Example(
        name="documents as they are", code=_SCRIPT, files=(("prepare_data.py", _PREPARE.format("text")),)
    ),
    Example(
        name="an option in lower case",
        code="import sys\nmode = sys.argv[1].lower()\nprint(mode.encode('utf-8'))\n",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    found = [f for nodes, path in _sources(ctx) for f in _folds(nodes, path)]
    yield from found
    if ctx.module is None and not found:
        yield Obligation(rule=RULE.id, status="not-applicable", reason="no readable source")
        return
    yield holds(
        RULE, "see the warning" if found else "no script of the submission folds the text that it encodes"
    )


def _sources(ctx: Context) -> Iterator[tuple[list[Any], str]]:
    """The nodes of the program's modules and of the submission's other scripts (data preparation), each with its path."""
    code = code_of(ctx)
    for key, module in ctx.modules.items():
        if not _may_fold("\n".join(module.lines)):
            continue
        if key != ctx.primary:
            yield list(ir.walk(module)), module.path  # with what stands under a helper's main guard
            continue
        own = [n for p in code.places if p.module is module for n in p.nodes(ir.Call, ir.Assign, ir.Const)]
        yield sorted(own, key=lambda n: (n.line, n.col)), module.path
    if ctx.files is None:
        return
    others = [p for p in ctx.files.ending(".py") if p not in ctx.modules][:MAX_SCRIPTS]
    left = MAX_CHARACTERS
    for path in others:
        text = ctx.files.text(path)
        if text is None or len(text) > left or not _may_fold(text):
            continue
        left -= len(text)
        try:
            module = lower(text, path)
        except Unparsable:
            continue
        yield list(ir.walk(module)), module.path


def _may_fold(text: str) -> bool:
    """A look at the words before the tree is walked: a folder may hold forty scripts."""
    return _FOLDING_RULE.search(text) is not None or (_FOLD.search(text) is not None and any(w in text for w in _ENCODES))


def _folds(nodes: list[Any], path: str) -> Iterator[Finding]:
    folded = _folded_names(nodes)
    seen: set[int] = set()
    for node in nodes:
        if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _ENCODES:
            for part in ir.walk(node.args[:1]):
                at = (
                    part.line
                    if _is_fold(part)
                    else folded.get(part.id)
                    if isinstance(part, ir.Name)
                    else None
                )
                if at is not None and at not in seen:
                    seen.add(at)
                    yield _finding(path, at, node.line, "the text is folded before it is encoded")
        if isinstance(node, ir.Const) and isinstance(node.value, str) and _FOLDING_RULE.fullmatch(node.value):
            yield _finding(path, node.line, node.line, "the tokenizer's normalisation folds case")


def _is_fold(node: Any) -> bool:
    return (
        isinstance(node, ir.Call)
        and isinstance(node.func, ir.Attr)
        and node.func.attr in _FOLDS
        and not node.args
    )


def _folded_names(nodes: Iterable[Any]) -> dict[str, int]:
    """Names assigned from a folding call, as the value itself or inside a chain of string methods."""
    names: dict[str, int] = {}
    for node in nodes:
        if isinstance(node, ir.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ir.Name):
            value: Any = node.value
            while isinstance(value, (ir.Call, ir.Attr, ir.Sub)):
                if _is_fold(value):
                    names[node.targets[0].id] = value.line
                    break
                value = value.func if isinstance(value, ir.Call) else value.value
    return names


def _finding(path: str, line: int, used: int, message: str) -> Finding:
    return Finding(
        rule=RULE.id, name=RULE.name, severity=RULE.severity, authority=RULE.authority, confidence="medium",
        message=message, path=path, line=line, end_line=line,
        trace=(Step(path=path, line=line, message=message), Step(path=path, line=used, message="what the encoder is given")),
    )  # fmt: skip
