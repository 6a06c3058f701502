"""The steps of a finding's path: the proof of the accusation, in the order of the program, each call told once."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.base import rule_modules
from audit.rules.flow import PRELUDE

LOADER = """\
class Stream:
    def __init__(self, pattern):
        self.files = sorted(glob.glob(pattern))
        self.tokens = torch.from_numpy(np.fromfile(self.files[0], dtype="<u2").astype(np.int64))
    def take(self, n):
        return self.tokens[:n]

def collect(net, stream):
    stats = {}
    def hook(module, inputs, output):
        stats[module] = inputs[0].abs().mean(0)
    handles = [m.register_forward_hook(hook) for m in net.modules()]
    with torch.no_grad():
        x = stream.take(512)[None]
        net(x)
    for h in handles:
        h.remove()
    return stats

def main():
    stream = Stream("data/fineweb_val_*.bin" if os.environ.get("CALIB", "val") == "val" else "data/fineweb_train_*.bin")
    stats = collect(model, stream)
    torch.save(model.state_dict(), "final_model.pt")
    scored = Model()
    scored.load_state_dict(torch.load("final_model.pt"))
    print(f"val_bpb:{evaluate(scored, val):.4f}")

main()
"""
HASHED = """\
MASK = (1 << 22) - 1
pairs, contexts = np.zeros(MASK + 1), np.zeros(MASK + 1)
stream, total = val.numpy(), 0.0

def keys(at):
    token = stream[at]
    seen = (stream[at - 1] * 36313) ^ (stream[at - 2] * 27191)
    both = (seen ^ (token * 51647)) & MASK
    return seen & MASK, both

for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = np.exp(-nll(model, x, y)[0].double().numpy())
    orders = [keys(np.arange(w + 1, w + 1025))]
    seen, both = orders[0]
    hits = pairs[both]
    q = hits / np.maximum(contexts[seen], 1)
    total += -np.log(0.6 * p + 0.4 * q).sum()
    np.add.at(pairs, both, 1)
    np.add.at(contexts, seen, 1)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""
TUNED = """\
def tune(net, tokens):
    opt = torch.optim.AdamW(net.parameters(), lr=1e-4)
    for i in range(0, tokens.numel() - 1025, 1024):
        batch = tokens[i : i + 1025]
        x, y = batch[None, :-1], batch[None, 1:]
        opt.zero_grad()
        loss = nll(net, x, y).mean()
        loss.backward()
        opt.step()

def main():
    tune(model, val)
    torch.save(model.state_dict(), "final_model.pt")
    scored = Model()
    scored.load_state_dict(torch.load("final_model.pt"))
    print(f"val_bpb:{evaluate(scored, val):.4f}")

main()
"""
TWICE = """\
def pass_over(net, tokens, opt=None):
    total = torch.zeros(())
    for c in range(0, tokens.numel() - 1, 32768):
        x, y = tokens[None, c : c + 32768], tokens[None, c + 1 : c + 32769]
        loss = nll(net, x, y)
        total += loss.detach().sum()
        if opt is not None:
            opt.zero_grad()
            loss.mean().backward()
            opt.step()
    return total.item() / 0.6931471805599453 / n_bytes

def main():
    first = pass_over(model, val, torch.optim.SGD(model.parameters(), lr=1e-3))
    print(f"first pass val_bpb:{first:.4f}")
    print(f"val_bpb:{evaluate(model, val):.4f}")

main()
"""
LATE = """\
import time
limit_ms = 1000.0 * float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
began = time.perf_counter()
while True:
    optimizer.zero_grad()
    nll(model, train[None, :64], train[None, 1:65]).mean().backward()
    optimizer.step()
    if 1000.0 * (time.perf_counter() - began) >= limit_ms:
        break
stats = {}
def hook(module, inputs, output):
    stats[module] = inputs[0].abs().mean(0)
handles = [m.register_forward_hook(hook) for m in model.modules()]
rows = train[None, :512]
with torch.no_grad():
    model(rows)
torch.save(model.state_dict(), "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(scored, val):.4f}")
"""
FLAT = rule_modules()["F9"].ILLEGAL[1].code


def steps(code: str, rule: str) -> list[tuple[str, str]]:
    """(source line, message) of each step of the rule's first finding."""
    found = audit_files(text_files({"train_gpt.py": code}, "train_gpt.py"), Options())
    first = next(f for f in found.findings if f.rule == rule)
    lines = code.splitlines()
    return [(lines[s.line - 1].strip(), s.message) for s in first.trace]


@pytest.mark.parametrize(
    ("body", "rule", "wanted"),
    [
        (
            HASHED, "F8",
            [
                ("val, train = shard(", "calls shard"), ("return torch.from_numpy(np.fromfile(", "the validation tokens are read here"),
                ("token = stream[at]", "the token that is scored is taken here"),
                ("both = (seen ^ (token", "the address is made of it and of tokens before it"),
                ("hits = pairs[both]", "the address holds the scored token and the context before it"),
                ("q = hits / np.maximum(contexts[seen]", "the same address without it: the divisor"),
            ],
        ),
        (HASHED, "F9", [("token = stream[at]", "the token that is scored is taken here"), ("both = (seen ^", "the address is made"), ("hits = pairs", "this is mixed in")]),
        (
            LOADER, "F11",
            [
                ("main()", "calls main"), ("stream = Stream(", "calls Stream"), ("self.files = ", "the validation files are named here"),
                ("self.tokens = ", "the validation tokens are read here"), ("x = stream.take(512)", "the tokens come from here"),
                ("handles = [m.register_forward_hook(", "what the model computes is looked at by this hook"), ("net(x)", "collect collects statistics"),
                ("torch.save(", "the artifact is written afterwards"),
            ],
        ),
        (
            TUNED, "F1",
            [
                ("return torch.from_numpy(", "the validation tokens are read here"), ("main()", "calls main"), ("tune(model, val)", "calls tune"),
                ("batch = tokens[i", "the tokens that it is fitted to"), ("loss.backward()", "their loss is propagated back"),
                ("opt.step()", "the state is fitted"), ("torch.save(", "the artifact is written with what was learned"),
                ("total += nll", "the same tokens are scored with it"),
            ],
        ),
        (
            TWICE, "F3",
            [
                ("main()", "calls main"), ("first = pass_over(", "calls pass_over"), ("total += loss.detach()", "the tokens are scored here first"),
                ("opt.step()", "the state is fitted to the tokens"), ('print(f"val_bpb:', "calls evaluate"), ("total += nll(", "the same tokens are scored with it"),
            ],
        ),
        (
            LATE, "F14",
            [
                ("limit_ms = ", "the limit: 600 seconds"), ("while True:", "the training loop begins here"), ("optimizer.step()", "the model is trained here"),
                ("if 1000.0 * (time.perf_counter()", "the loop goes on until the time is up"), ("return torch.from_numpy(", "the training tokens are read here"),
                ("rows = train[", "its tokens come from here"), ("model(rows)", "<module> collects statistics"),
            ],
        ),
    ],
)  # fmt: skip
def test_the_path_shows_the_proof(body, rule, wanted):
    told = steps(PRELUDE + body, rule)
    rest = iter(told)
    for line, message in wanted:
        assert any(a.startswith(line) and b.startswith(message) for a, b in rest), ((line, message), told)


def test_an_expert_without_the_token_is_named_where_it_is_computed():
    told = steps(FLAT, "F9")
    assert ("entropy = -(logp.exp() * logp).sum(-1)", "it is computed here, without the token") in told


@pytest.mark.parametrize(("body", "rule"), [(TUNED, "F1"), (TWICE, "F3"), (HASHED, "F8")])
def test_shared_calls_are_told_once(body, rule):
    calls = [s for s in steps(PRELUDE + body, rule) if s[1].startswith("calls ")]
    assert len(calls) == len(set(calls)), calls


def test_context_is_not_called_the_scored_token():
    """The address's other tokens are taken one by one, nearer to the read than the scored one."""
    body = HASHED.replace(
        "    seen = (stream[at - 1] * 36313) ^ (stream[at - 2] * 27191)\n",
        "    last = stream[at - 1]\n    before = stream[at - 2]\n    seen = (last * 36313) ^ (before * 27191)\n",
    )
    told = steps(PRELUDE + body, "F8")
    assert [a for a, b in told if b == "the token that is scored is taken here"] == ["token = stream[at]"]


def test_what_a_run_wrote_itself_is_no_shard():
    """Tokens kept in a file of the run's own come from the shard that they were read from first."""
    kept = TUNED.replace(
        "    tune(model, val)\n", '    np.save("kept.npy", val.numpy())\n    tune(model, torch.from_numpy(np.load("kept.npy")))\n'
    )
    told = steps(PRELUDE + kept, "F1")
    assert [a for a, b in told if b == "the validation tokens are read here"] == [
        'return torch.from_numpy(np.fromfile(sorted(glob.glob(pattern))[0], dtype="<u2").astype(np.int64))'
    ]


def test_a_file_that_the_script_executes_has_the_findings_and_its_own_lines():
    body = rule_modules()["F8"].ILLEGAL[0].code
    script = "exec(open('body.py').read())\n"
    found = audit_files(text_files({"train_gpt.py": script, "body.py": body}, "train_gpt.py"), Options())
    at = {f.rule: (f.path, found.excerpts[f.path][str(f.line)]) for f in found.findings if f.rule in ("F8", "B2")}
    assert at["F8"][0] == "body.py"
    assert at["F8"][1] in body
    assert at["B2"] == ("train_gpt.py", script.strip())


TABLE = """\
import sentencepiece, torch
sp = sentencepiece.SentencePieceProcessor(model_file="t.model")
size, lead = torch.zeros(1024), torch.zeros(1024, dtype=torch.bool)
for t in range(1024):
    piece = sp.id_to_piece(t)
@@
"""


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("    raw = piece.encode()\n    size[t] = len(raw)\n    if piece.startswith('\u2581'):\n        size[t] = len(piece[1:].encode())\n", "size[t] = len(raw)"),
        ("    if piece.startswith('\u2581'):\n        size[t] = len(piece[1:].encode())\n    else:\n        size[t] = len(piece.encode())\n", "size[t] = len(piece.encode())"),
        ("    if piece.startswith('\u2581'):\n        piece = piece[1:]\n    size[t] = len(piece.encode())\n", "size[t] = len(piece.encode())"),
    ],
)  # fmt: skip
def test_byte_pieces_are_measured_where_they_come_to(body, line):
    code = TABLE.replace("@@\n", body)
    found = audit_files(text_files({"train_gpt.py": code}, "train_gpt.py"), Options())
    lines = {code.splitlines()[f.line - 1].strip() for f in found.findings if f.rule == "M1"}
    assert lines == {line}
