"""Score-first in numbers: where the slice that a turn trains on ends, and where the next turn's scores begin."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

END = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
WALK = "for c in range(0, val.numel() - 1, 32768):"
NUMBERED = """\
for k in range((val.numel() - 1) // 32768):
    c = k * 32768
    e = min((k + 1) * 32768, val.numel() - 1)"""
OPEN = "c = 0\nwhile c + 32769 < val.numel():"


def accused(body: str) -> list[tuple[str, str]]:
    code = PRELUDE + "opt = torch.optim.SGD(model.parameters(), lr=1e-3)\ntotal = torch.zeros(())\n" + body + END
    return [(f.rule, f.message) for f in audit_text(code).findings if f.severity == "violation"]


def turn(train: str, walk: str = WALK, window: str = "c : c + 32768", target: str = "c + 1 : c + 32769", last: str = "") -> str:
    lines = [
        f"x, y = val[None, {window}], val[None, {target}]",
        "with torch.no_grad():",
        "    total += nll(model, x, y).sum()",
        *train.splitlines(),
        *([last] if last else []),
    ]
    return walk + "\n" + "".join(f"    {line}\n" for line in lines)


def fit(piece: str, loss: str = "nll(model, w[None, :-1], w[None, 1:])") -> str:
    return f"w = {piece}\nopt.zero_grad()\n{loss}.mean().backward()\nopt.step()"


BATCHES = """\
for b in range(c, c + {}, 1024):
    opt.zero_grad()
    nll(model, val[None, b : b + 1024], val[None, b + 1 : b + 1025]).mean().backward()
    opt.step()"""
FUNCTIONS = """\
def adapt(m, tokens):
    opt.zero_grad()
    nll(m, tokens[None, :-1], tokens[None, 1:]).mean().backward()
    opt.step()
def evaluate_chunks(m, stream, size, more):
    total = torch.zeros(())
    for c in range(0, stream.numel() - 1, size):
        w = stream[c : c + size + 1]
        with torch.no_grad():
            total += nll(m, w[None, :-1], w[None, 1:]).sum()
        adapt(m, stream[c : c + size + 1 + more])
    return total
total = evaluate_chunks(model, val, 4096, {})
"""
ROWS = "nll(model, w[:-1].reshape(-1, 1024), w[1:].reshape(-1, 1024))"

PAST = {
    "a token": (1, turn(fit("val[c : c + 32770]"))),
    "more": (64, turn(fit("val[c : c + 32769 + 64]"))),
    "shifted": (64, turn(fit("val[c + 64 : c + 32769 + 64]"))),
    "chunks by number": (256, turn(fit("val[c : e + 257]"), NUMBERED, "c : e", "c + 1 : e + 1")),
    "an open loop": (64, turn(fit("val[c : c + 32769 + 64]"), OPEN, last="c += 32768")),
    "batches": (1024, turn(BATCHES.format("32768 + 1024"))),
    "rows": (1024, turn(fit("val[c : c + 32769 + 1024].long()", ROWS))),
    "through functions": (32, FUNCTIONS.format(32)),
}
WITHIN = {
    "the same chunk": turn(fit("val[c : c + 32769]")),
    "less of it": turn(fit("val[c : c + 32001]")),
    "chunks by number": turn(fit("val[c : e + 1]"), NUMBERED, "c : e", "c + 1 : e + 1"),
    "an open loop": turn(fit("val[c : c + 32769]"), OPEN, last="c += 32768"),
    "batches": turn(BATCHES.format("32768")),
    "rows": turn(fit("val[c : c + 32769].long()", ROWS)),
    "through functions": FUNCTIONS.format(0),
    "losses cut off": turn(fit("val[c : c + 32769 + 64]", "nll(model, w[None, :-1], w[None, 1:])[:, :-64]")),
    "losses masked": turn(
        "w = val[c : c + 32769 + 64]\nopt.zero_grad()\nl = nll(model, w[None, :-1], w[None, 1:])\n"
        "m = torch.ones_like(l)\nm[:, 32768:] = 0\n(l * m).mean().backward()\nopt.step()"
    ),
    "scored with what came before as context": turn(
        fit("val[c : c + 32769]"), WALK + "\n    p = max(c - 512, 0)", "p : c + 32768", "p + 1 : c + 32769"
    ).replace("nll(model, x, y).sum()", "nll(model, x, y)[:, c - p:].sum()"),
}


@pytest.mark.parametrize("name", PAST)
def test_training_past_what_was_scored_is_told_in_tokens(name):
    many, body = PAST[name]
    how = "a token past" if many == 1 else f"{many:,} tokens past"
    found = accused(body)
    assert {rule for rule, _ in found} == {"F2"}
    assert all(how in message for _, message in found)


@pytest.mark.parametrize("name", WITHIN)
def test_training_on_what_was_scored_is_not(name):
    assert not accused(WITHIN[name])


def test_tokens_that_were_scored_in_an_earlier_pass_stay_a_second_score():
    """Numbers say that a turn's slice ends before the next turn's; a second pass comes back to it all the same."""
    body = "for epoch in range(2):\n" + "".join(
        f"    {line}\n" for line in turn(fit("val[c : c + 32769]")).splitlines()
    )
    assert "F3" in {rule for rule, _ in accused(body)}


WINDOWS = """\
n, T, S = val.numel() - 1, 1024, 512
each = torch.zeros(n)
for s in range(0, n, S):
    e = min(s + T, n)
    x, y = val[None, s:e], val[None, s + 1 : e + 1]
    with torch.no_grad():
        l = nll(model, x, y)[0]
        {}
    opt.zero_grad()
    nll(model, x, y){}.mean().backward()
    opt.step()
    if e == n:
        break
total = total + each.sum()
"""


@pytest.mark.parametrize(
    ("kept", "fitted", "found"),
    [
        ("each[s:e] = l", "", True),  # overwrites what was scored before the model learned from it
        ("total += l.sum()", "", True),
        ("total += nll(model, x, y)[0].sum()", "", True),
        ("each[s:e] = l", "[0, : T - S]", False),
        ("each[s + (T - S) : e] = l[T - S :]", "", False),
        ("total += l[T - S :].sum()", "", False),
        ("new = 0 if s == 0 else T - S\n        each[s + new : e] = l[new:]", "", False),
    ],
)
def test_windows_that_overlap_are_scored_for_their_new_tokens_only(kept, fitted, found):
    assert bool(accused(WINDOWS.format(kept, fitted))) is found


def test_the_windows_that_abut():
    assert not accused(WINDOWS.replace("S = val.numel() - 1, 1024, 512", "S = val.numel() - 1, 1024, 1024").format("each[s:e] = l", ""))


LISTED = """\
T, S = 1024, 64
n = val.numel() - 1
starts = [ws for ws in range(0, n, S) if ws + T - S < n]
size = int(os.environ.get("TTT_CHUNK", 32768)) // S
for i in range(0, len(starts), size):
    windows = starts[i : i + size]
    for ws in windows:
        end = min(ws + T, n)
        w = val[ws : end + 1].long()
        with torch.no_grad():
            l = nll(model, w[:-1].unsqueeze(0), w[1:].unsqueeze(0)).reshape(1, end - ws)
        total += l[0, 0 if ws == 0 else T - S :].sum()
    for epoch in range(3):
        for ws in {}:
            end = min(ws + T, n)
            w = val[{}].long()
            opt.zero_grad()
            nll(model, w[:-1].unsqueeze(0), w[1:].unsqueeze(0)).mean().backward()
            opt.step()
"""


@pytest.mark.parametrize(
    ("windows", "learned", "past"),
    [
        ("windows", "ws : end + 1", 0),
        ("windows", "ws : end", 0),
        ("windows", "ws + T - S : end + 1", 0),
        ("windows", "max(ws - T, 0) : end + 1", 0),
        ("windows[:-1]", "ws : end + S + 1", 0),  # the last one begins a step further on
        ("windows", "ws : end + 2", 1),
        ("windows", "ws : min(end + S, n) + 1", 64),
        ("windows", "ws + T : end + T + 1", 1024),
    ],
)
def test_a_window_of_a_list_is_learned_no_further_than_it_was_scored(windows, learned, past):
    found = accused(LISTED.format(windows, learned))
    assert {rule for rule, _ in found} == ({"F2"} if past else set())
    assert all(("a token past" if past == 1 else f"{past:,} tokens past") in message for _, message in found)


def test_numbers_that_were_divided_stand_at_no_place():
    """The share of a rank begins somewhere in the chunk."""
    ranks = """\
m = (e - c) // 1024
r, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
lo, hi = m * r // world, m * (r + 1) // world
""" + fit("val[c + lo * 1024 : c + hi * 1024 + {}]", ROWS)
    assert not accused(turn(ranks.format(1), NUMBERED, "c : e", "c + 1 : e + 1"))
    assert accused(turn(ranks.replace("val[c + lo * 1024 : c", "val[e + lo * 1024 : e").format(1), NUMBERED, "c : e", "c + 1 : e + 1"))
