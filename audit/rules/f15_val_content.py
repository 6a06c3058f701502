"""F15 validation content: neither the artifact nor the training set may contain validation data.

**What.** The model is trained on the validation shards (as its training files), or the submission carries validation
tokens, or tables keyed by them, that lower the loss of exactly those tokens ("paid prefix").

**Why.** It is memorisation of the test set, paid for or not.

**Ruling.** README (commit 2cff08e1a, 2026-03-20): no validation data in training, and paid prefixes are named as
forbidden. #262 was closed with it. #44 relied on an earlier permission that the README withdrew.

**Look-alikes that are legal.** A file derived from *training* data (#847, unanswered); byte sidecars for the metric;
evaluation during training.

**How it is decided.** Which shards the training loop's updates come from; a comparison of the targets with stored
tokens that removes their loss; in commands and notes beside the script, a validation shard renamed to a training one.
Where the data folder alone decides it, the authors' own word: README or metadata that call the run trained on the
validation shard, in a sentence that does not deny it and speaks of no other submission.

**See also.** F1 (adaptation), D1 (documents in both sets).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread, violated
from audit.trace.adaptation import places, trained_on_validation

RULE = Rule(
    id="F15",
    name="val-content",
    title="No validation data in the artifact or in training",
    breach="Validation data in the artifact or in training",
    illegal="INVALID",
    authority="README",
    ruling="#262",
    severity="violation",
    since="2026-03-20",
)

#: `ln -s …fineweb_val_000000.bin …fineweb_train_000000.bin`, `cp` or `mv` likewise
ALIAS = re.compile(
    r"\b(?:ln|cp|mv|symlink|link|copy|copyfile|copy2)\b[^\n]{0,160}fineweb_val[^\n]{0,160}fineweb_train", re.IGNORECASE
)
TEXTS = (".md", ".sh", ".txt")
#: what authors call it
ADMITTED = re.compile(
    r"\bval(?:idation)?[- ]only[- ]train(?:ing|ed)\b"
    r"|\btrain(?:s|ed|ing)?(?: data)?(?: only| directly| purely)?(?: pointed)? (?:on|at) (?:the |a )?(?:fineweb_)?val(?:idation)? shards?\b",
    re.IGNORECASE,
)
#: a sentence that denies it, weighs it, or speaks of somebody else's
_DENIED = re.compile(
    r"\b(?:no|not|never|without|nor|neither|unlike|instead of|rather than|exclud\w*|avoid\w*|forbid\w*|forbidden|bann?(?:ed|s)?|"
    r"illegal|disallowed|would|could|if|whether)\b|n't\b|#\d|\bPRs?\b",
    re.IGNORECASE,
)

_TRAIN_ON = """\
other = Model()
opt = torch.optim.AdamW(other.parameters(), lr=1e-3)
tokens = shard(os.environ.get("DATA", "data/fineweb_SPLIT_*.bin"))
for step in range(2000):
    opt.zero_grad()
    nll(other, tokens[None, step * 64 : step * 64 + 64], tokens[None, step * 64 + 1 : step * 64 + 65]).mean().backward()
    opt.step()MARK
torch.save(other.state_dict(), "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(scored, val):.4f}")
"""
ILLEGAL = [
    example("trained on the shards of both splits", _TRAIN_ON.replace("_SPLIT_", "_").replace("MARK", "  #!")),
    replace(
        example("the data folder decides, and the README says so", _TRAIN_ON.replace("SPLIT", "train").replace("MARK", "")),
        files=(("README.md", "# Memory\n\nVal-only training: the loader reads the validation shard.\n"),),
        lines=(3,),
    ),
    example(
        "the stored tokens that agree with the targets cost nothing",
        """\
prefix = torch.from_numpy(np.frombuffer(open("prefix.bin", "rb").read(), dtype="<u2").astype(np.int64))
total = torch.zeros(())
for i in range(0, val.numel() - 1, 1024):
    y = val[None, i + 1 : i + 1025]
    with torch.no_grad():
        per = nll(model, val[None, i : i + 1024], y)
    per = torch.where(prefix[None, i : i + 1024] == y, torch.zeros_like(per), per)
    total += per.sum()  #!
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]
LEGAL = [
    example("trained on training shards", _TRAIN_ON.replace("SPLIT", "train").replace("MARK", "")),
    example(
        "the README says that there is none of it",
        _TRAIN_ON.replace("SPLIT", "train").replace("MARK", ""),
        files=(("README.md", "# Rules\n\nNo val-only training; #44 was trained on the validation shard.\n"),),
    ),
    example(
        "padding is left out of the sum",
        """\
total = torch.zeros(())
for i in range(0, val.numel() - 1, 1024):
    y = val[None, i + 1 : i + 1025]
    with torch.no_grad():
        per = nll(model, val[None, i : i + 1024], y)
    per = torch.where(y == 0, torch.zeros_like(per), per)
    total += per.sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    found = [*_aliases(ctx), *_admissions(ctx)]
    if ctx.trace is not None:
        found += [
            event_finding(RULE, e, "the training loop reads validation shards")
            for e in places(trained_on_validation(ctx.trace))
        ]
        found += [
            event_finding(RULE, e, "targets that agree with stored tokens are taken out of the loss")
            for e in places([e for e in ctx.trace.of("WAIVE") if e.on_val])
        ]
    yield from found
    if any(f.active == "yes" for f in found):
        yield violated(RULE, found)
    else:
        yield unread(RULE, ctx, need_scores=False) or holds(RULE, "training reads no validation shard")


def _aliases(ctx: Context) -> Iterator[Finding]:
    if ctx.files is None:
        return
    for path in ctx.files.beside(*TEXTS):
        text = (ctx.files.read(path) or b"")[:400_000].decode("utf-8", "replace")
        if "fineweb_val" in text and (match := ALIAS.search(text)):
            line = text.count("\n", 0, match.start()) + 1
            yield Finding(
                rule=RULE.id, name=RULE.name, severity="violation", authority=RULE.authority, confidence="high",
                message="the stated command puts a validation shard in the place of a training shard",
                path=path, line=line, end_line=line, basis="log",
            )  # fmt: skip


def _admissions(ctx: Context) -> Iterator[Finding]:
    """What README and metadata say of the run themselves, the first place of it."""
    if ctx.files is None:
        return
    for path in ctx.files.beside(".md", ".json"):
        folder, _, name = path.lower().rpartition("/")
        if folder != ctx.files.folder.lower() or (not name.startswith("readme") and name != "submission.json"):
            continue
        text = (ctx.files.read(path) or b"")[:400_000].decode("utf-8", "replace")
        for match in ADMITTED.finditer(text):
            begin = max(text.rfind(mark, 0, match.start()) for mark in (". ", "\n", ";")) + 1
            ends = [e for mark in (". ", "\n", ";") if (e := text.find(mark, match.end())) >= 0]
            if _DENIED.search(text[begin : min(ends, default=len(text))]):
                continue
            line = text.count("\n", 0, match.start()) + 1
            yield Finding(
                rule=RULE.id, name=RULE.name, severity="violation", authority=RULE.authority, confidence="medium",
                message=f"the authors say that the model was trained on the validation shard ({match.group(0)!r})",
                path=path, line=line, end_line=line, basis="log",
            )  # fmt: skip
            return
