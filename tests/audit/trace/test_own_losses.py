"""Methods of a model that take a batch of tokens and give back its loss."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

HEAD, REST = PRELUDE.split("def nll(")[0], "def nll(" + PRELUDE.split("def nll(")[1]
WITH = """\
    def loss(self, batch):
@@
model = Model()
total = torch.zeros(())
for e in range(%%):
    for i in range(0, val.numel() - 1, 1024):
        loss = model.loss(val[None, i : i + 1025])
        if e == %% - 1:
            total += loss.detach() * 1024
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
SPLIT = "logits = self(batch[:, :-1])\nreturn F.cross_entropy(logits.reshape(-1, 1024), batch[:, 1:].reshape(-1))"
NAMED = "logits = self(batch[:, :-1])\nce = F.cross_entropy(logits.reshape(-1, 1024), batch[:, 1:].reshape(-1))\nloss = ce * 1.0\nreturn loss"


def audited(method: str, epochs: int) -> str:
    body = "\n".join("        " + line for line in method.splitlines())
    own, _, run = WITH.partition("model = Model()")
    source = HEAD.rstrip() + "\n" + own.replace("@@", body) + REST + run.replace("%%", str(epochs))
    found = audit_text(source)
    return "F3" if any(f.rule in ("F2", "F3") and f.severity == "violation" for f in found.findings) else found.verdict


@pytest.mark.parametrize("method", [SPLIT, NAMED])
def test_the_batch_is_scored(method):
    assert audited(method, 1) == "clean"  # scored, then learned from
    assert audited(method, 3) == "F3"  # the last epoch's score


@pytest.mark.parametrize(
    "method",
    [
        "return self(batch[:, :-1])",
        "logits = self(batch[:, :-1])\nif self.training:\n    return F.cross_entropy(logits.reshape(-1, 1024), batch[:, 1:].reshape(-1))\nreturn logits",
        "return {'loss': self(batch[:, :-1]).mean()}",
    ],
)
def test_what_may_give_back_something_else_is_no_score(method):
    assert audited(method, 3) == "undetermined"
