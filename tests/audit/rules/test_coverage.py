"""D2 by source: an evaluation that is known to leave out most of the validation set is not shown to be over all of it."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE

LOOP = """\
def score(model, val, L=1024, most=None):
    total, done = torch.zeros(()), 0
    for n, i in enumerate(range(0, @@)):
        ^^
        with torch.no_grad():
            total += nll(model, val[None, i : i + L], val[None, i + 1 : i + L + 1]).sum()
        done += 1
    return total.item() / 0.6931471805599453 / n_bytes

print(f"val_bpb:{score(model, val):.4f}")
"""
WHOLE = "val.numel() - 1, L"
LOG = "val_loader:shards pattern=./data/fineweb_val_*.bin tokens:62021632\nfinal_int6_exact val_loss:1.88000000 val_bpb:1.11344758\n"


def d2(code: str, files: dict[str, str] | None = None, **env: str):
    found = audit_files(text_files({"train_gpt.py": PRELUDE + code} | (files or {}), "train_gpt.py"), Options(env=env))
    (status,) = [o for o in found.obligations if o.rule == "D2"]
    return status.status, status.reason, found.verdict


def loop(turns: str = WHOLE, guard: str = "pass", call: str = "score(model, val)") -> str:
    return LOOP.replace("@@", turns).replace("^^", guard).replace("score(model, val)", call)


def batch(size: str, guard: str = "pass") -> str:
    """Windows of 128 tokens, ``size`` of them in a turn of the loop over the set."""
    inner = f"for j in range(size):\n                {guard}\n                a = i + j * 128\n                total += "
    inner += "nll(model, val[None, a : a + 128], val[None, a + 1 : a + 129]).sum()"
    whole = "total += nll(model, val[None, i : i + L], val[None, i + 1 : i + L + 1]).sum()"
    return loop().replace(whole, inner).replace("total, done =", f"size = {size}\n    total, done =")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (loop(call="score(model, val[:131073])"), "131,073 tokens"),
        (loop(call="score(model, val[: int(os.environ.get('VAL_TOKENS', '65536')) + 1])"), "VAL_TOKENS=65536"),
        (loop(guard="if n >= 50: break"), "50 turns"),
        (loop(guard="if most is not None and n >= most:\n            break", call="score(model, val, most=32)"), "32 turns"),
        (loop(guard="if done == 64: break"), "64 turns"),
        (loop(guard="if i + L > val.numel() or n > 50: break"), "50 turns"),
        (batch("val.numel() // 8", guard="if j >= 2: break"), "2 turns"),
        (loop("min(val.numel() - 1, 32), 1"), "32 tokens"),
        (loop("(min((val.numel() - 1) // L, 32)) * L, L"), "32 turns"),
        (loop(call="score(model, val[: min((val.numel() - 1) // 1024, 10) * 1024 + 1])"), "10 turns"),
        (
            "def score(model, val, L=1024):\n    total, i, n = torch.zeros(()), 0, 0\n    while n < 100:\n        total += nll(model, "
            "val[None, i : i + L], val[None, i + 1 : i + L + 1]).sum()\n        i += L\n        n += 1\n"
            "    return total.item() / 0.6931471805599453 / n_bytes\nprint(f'val_bpb:{score(model, val):.4f}')\n",
            "100 turns",
        ),
    ],
)
def test_a_known_part_is_undetermined_until_a_log_shows_the_full_set(code, said):
    status, reason, verdict = d2(code)
    assert (status, verdict) == ("undetermined", "undetermined") and said in reason and "train_gpt.py:" in reason
    papers = {"train.log": LOG, "submission.json": '{"val_bpb": 1.11344758}'}
    assert d2(code, papers)[0] == "holds"


@pytest.mark.parametrize(
    "code",
    [
        loop(),
        loop(call="score(model, val[: (val.numel() - 1) // 1024 * 1024 + 1])"),
        loop(call="score(model, val[:100_000_000])"),
        loop(guard="if n >= 121_000: break"),
        loop(guard="if i + L > val.numel(): break"),
        loop(guard="if n >= 50 and i + L > val.numel(): break"),
        loop(guard="if next(iter([n])) >= 50: break"),
        loop(guard="if total > 5000: break"),
        loop(guard="import time\n        now = time.time() + n\n        if now > 500: break"),
        loop(guard="if most is not None and n >= most:\n            break"),
        loop("min((val.numel() - 1) // 512, 50_000), 1"),
        loop(guard="chunk = min(L, val.numel())"),
        # a rehearsal on a part, then the full evaluation that is reported
        "warm = score(model, val[:4096])\n".join(loop().rsplit("print", 1)).replace("score(model, val[:4096])\n(", "score(model, val[:4096])\nprint("),
        # a batch is no part
        batch("min(8, val.numel())"),
    ],
)  # fmt: skip
def test_what_may_be_all_of_it_is_not(code):
    status, reason, _verdict = d2(code)
    assert status == "not-applicable", reason


def test_a_setting_opens_the_whole_set():
    code = loop(call="score(model, val, most=int(os.environ.get('MOST', '8')))", guard="if most > 0 and n >= most: break")
    assert d2(code)[0] == "undetermined"
    assert d2(code, MOST="0")[0] == "not-applicable"



TRIMMED = "def trimmed(tokens, L):\n    return tokens[: (tokens.numel() - 1) // L * L + 1]\nval = trimmed(val, 1024)\n"


@pytest.mark.parametrize(
    ("cut", "status"),
    [
        # a part of what was trimmed to whole sequences is a part of the set
        ("val = val[:500_001]", "violated"),
        ("val = val[: 488 * 1024 + 1]", "violated"),
        ("if 500_000 < val.numel():\n    val = val[:500_001]", "violated"),
        ("N = 500_000\nif N > 0 and N < val.numel() - 1:\n    usable = (N // 1024) * 1024\n    val = val[: usable + 1]", "violated"),
        ("N = 500_000\nval = val if N >= len(val) else val[:N]", "violated"),
        ("val = val[: min(500_001, val.numel())]", "violated"),
        ("val = val[: min(val.numel() - 1, 2_000_000) // 1024 * 1024 + 1]", "violated"),
        ("N = int(os.environ.get('KEEP', '500000'))\nif 0 < N < val.numel():\n    val = val[: N + 1]", "undetermined"),
        ("if torch.cuda.device_count() < 8:\n    val = val[:500_001]", "undetermined"),
        ("if val.numel() < 500_000:\n    pass\nelse:\n    val = val[:500_001]", "undetermined"),
        # a first part, and what follows
        ("first = val[:500_001]", "not-applicable"),
        ("N = 0\nif N > 0 and N < val.numel():\n    val = val[: N + 1]", "not-applicable"),
        ("val = val[: min(45_000_000, val.numel())]", "not-applicable"),
        ("val = val[:-1]", "not-applicable"),
        ("rows = val[:-1].view(-1, 1024)\nrows = rows[:60_000]", "not-applicable"),
    ],
)
def test_a_part_of_the_trimmed_stream(cut: str, status: str) -> None:
    score = 'print(f"val_bpb:{evaluate(model, val):.4f}")\n'
    assert d2(TRIMMED + cut + "\n" + score, {"submission.json": '{"val_bpb": 1.2350}'})[0] == status


@pytest.mark.parametrize(
    "walk",
    [
        "at = 0\nwhile at + 1 < val.numel():\n    w = val[at : at + 1025]\n    add(w)\n    at += 1024\n",
        "rest = val\nwhile len(rest) > 1:\n    w, rest = rest[:1025], rest[1024:]\n    add(w)\n",
        "for at in range(0, val.numel() - 1, 1024):\n    w = val[at : min(at + 1025, val.numel())]\n    add(w)\n",
        "add(val[:1025])\nfor at in range(1024, val.numel() - 1, 1024):\n    add(val[at : at + 1025])\n",
        "add(val[:1_000_001])\nadd(val[1_000_000:])\n",
        "for part in (val[:1_000_001], val[1_000_000:]):\n    for at in range(0, part.numel() - 1, 1024):\n        add(part[at : at + 1025])\n",
        "both = torch.cat([val[:1_000_001], val[1_000_001:]])\nfor at in range(0, both.numel() - 1, 1024):\n    add(both[at : at + 1025])\n",
        "nlls = [nll(model, w[None, :-1], w[None, 1:]) for w in (val[:1_000_001], val[1_000_000:])]\ntotal = torch.cat(nlls, 1).sum()\n",
        "total = torch.cat([nll(model, w[None, :-1], w[None, 1:]) for w in (val[:1_000_001],)] + [nll(model, val[None, 1_000_000:-1], val[None, 1_000_001:])], 1).sum()\n",
        "at, size = 0, 1024\nfor n in range((val.numel() - 1) // size):\n    w = val[at : at + size + 1]\n    add(w)\n    at += size\n",
        "n = min(1024, val.numel())\nfor at in range(0, val.numel() - 1, n):\n    add(val[at : at + n + 1])\n",
        "class Loader:\n    def __init__(self):\n        self.at = 0\n    def take(self, n):\n        w = val[self.at : self.at + n]\n        self.at += n - 1\n        return w\n"
        "loader = Loader()\nwhile loader.at + 1 < val.numel():\n    add(loader.take(1025))\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [TRIMMED, ""])
def test_walks_that_begin_with_the_first_tokens(before: str, walk: str) -> None:
    code = before + "total = torch.zeros(())\ndef add(w):\n    global total\n    with torch.no_grad():\n        total = total + nll(model, w[None, :-1], w[None, 1:]).sum()\n"
    code += walk + 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
    assert d2(code, {"submission.json": '{"val_bpb": 1.2350}'})[0] == "not-applicable"


STATED = {"submission.json": '{"val_bpb": 1.2350}'}
HARD = 'val = val[:500_001]\nprint(f"val_bpb:{evaluate(model, val):.4f}")\n'


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (HARD, "violated"),
        (HARD.replace("500_001", 'int(os.environ.get("KEEP", "500001"))'), "undetermined"),
        ("if len(val) % 7:\n    " + HARD, "undetermined"),
    ],
)
def test_only_a_part_that_nothing_changes_is_certain(code, status):
    assert d2(code, STATED)[0] == status
    assert d2(code)[0] == "undetermined"


def test_a_score_that_is_stated_elsewhere_may_be_another_scripts() -> None:
    assert d2(HARD, {"records/a/submission.json": STATED["submission.json"]})[0] == "undetermined"


@pytest.mark.parametrize(
    ("score", "status"),
    [("2.0515 val_bpb:1.2350", "violated"), ("2.0515 val_bpb:1.2150", "undetermined"), ("2.05 val_bpb:1.23", "undetermined")],
)
def test_bytes_per_token_near_a_tokenizers_tell_a_part_of_its_set(score, status):
    """2.0515 / (ln 2 x 1.2350) = 2.3965, and 2.4359 with 1.2150, where the whole set of SP1024 has 2.4359."""
    code = HARD.replace("500_001", 'int(os.environ.get("KEEP", "500001"))')
    log = f"final_int6_exact val_loss:{score}\n"
    stated = {"submission.json": f'{{"val_bpb": {score.rpartition(":")[2]}}}'}
    assert d2(code, {"train_seed1.log": log} | stated)[0] == status


LOADED = "val_loader:shards pattern=./data/fineweb_val_*.bin tokens:62021632\n"


@pytest.mark.parametrize(
    ("code", "lines", "status"),
    [
        # 2.4053 bytes a token, where the full set has 2.4359: the log's count is that of what was loaded
        (HARD, "final_exact val_loss:2.91930576 val_bpb:1.75095611\n", "violated"),
        (HARD, "step:100/100 val_loss:2.4786 val_bpb:1.4866\nfinal_exact val_loss:2.91930576 val_bpb:1.75095611\n", "violated"),
        # nothing in the program keeps to a part: the figures alone are a doubt
        (HARD.replace("val = val[:500_001]", ""), "final_exact val_loss:2.91930576 val_bpb:1.75095611\n", "undetermined"),
        # another setting, another version of the script: its figures fit
        (HARD, "final_exact val_loss:2.95640000 val_bpb:1.75095611\n", "holds"),
        # a third of a per cent: means of different tokens
        (HARD, "final_exact val_loss:2.94700000 val_bpb:1.75095611\n", "undetermined"),
        # another line of the same run is right
        (HARD, "step:100/100 val_loss:2.5101 val_bpb:1.4866\nfinal_exact val_loss:2.91930576 val_bpb:1.75095611\n", "undetermined"),
        # another run's figures than those that are stated
        (HARD, "final_exact val_loss:2.91930576 val_bpb:1.85095611\n", "undetermined"),
    ],
)
def test_figures_that_do_not_fit_the_full_set_confirm_a_part_that_the_program_keeps_to(code: str, lines: str, status: str) -> None:
    code = code.replace("500_001", 'int(os.environ.get("KEEP", "131073"))')
    assert d2(code, {"train_seed1.log": LOADED + lines, "submission.json": '{"val_bpb": 1.75095611}'})[0] == status


DOCS = """\
import random
cut = (val == 1).nonzero()[:, 0].tolist() + [val.numel() - 1]
docs, total, rng = list(zip(cut[:-1], cut[1:])), torch.zeros(()), random.Random(1337)

def add(docs):
    global total
    for a, b in docs:
        with torch.no_grad():
            total = total + nll(model, val[None, a:b], val[None, a + 1 : b + 1]).sum()

@
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
SOME = {
    "add(docs[:10_000])": "the first 10,000 documents",
    "add(docs[: min(len(docs), 2_000)])": "the first 2,000 documents",
    "docs = docs[:10_000]\nadd(docs[0::8])": "the first 10,000 documents",
    "add([docs[i] for i in range(len(docs))][:500])": "the first 500 documents",
    "rng.shuffle(docs)\nadd(sorted(docs[:10_000]))": "the first 10,000 documents",
    "docs = docs[: len(docs) // 5]\nadd(docs)": "the first 10,000 documents",
    "keep = docs[:10_000]\nfor i in range(0, len(keep), 8):\n    add(keep[i : i + 8])": "the first 10,000 documents",
    "add(random.sample(docs, 5_000))": "5,000 documents at random",
    "add(rng.sample(docs, k=len(docs) // 10))": "5,000 documents at random",
    "add([docs[i] for i in sorted(rng.sample(range(len(docs)), max(1, int(round(len(docs) * 0.02)))))])": "1,000 documents at random",
    "add([docs[i] for i in np.random.default_rng(0).choice(len(docs), 5_000, replace=False)])": "5,000 documents at random",
    "add([docs[i] for i in torch.randperm(len(docs))[:5_000].tolist()])": "the first 5,000 documents",
}
ALL = [
    "add(docs)",
    "add(docs[:50_000])",
    "add(docs[: len(docs)])",
    "add(docs[:10_000])\nadd(docs[10_000:])",
    "rng.shuffle(docs)\nadd(docs)",
    "add(rng.sample(docs, len(docs)))",
    "add([docs[i] for i in torch.randperm(len(docs)).tolist()])",
    "add([docs[i] for i in np.random.default_rng(0).choice(len(docs), len(docs), replace=False)])",
    "for i in range(0, len(docs), 64):\n    add(docs[i : i + 64])",
    "while docs:\n    part, docs = docs[:64], docs[64:]\n    add(part)",
    "print('first documents', docs[:3])\nadd(docs)",
    "add(docs[: int(os.environ.get('VAL_DOCS', '50000'))])",
    "some = int(os.environ.get('VAL_DOCS', '0'))\nif some > 0:\n    docs = docs[:some]\nadd(docs)",
    "add(docs[: len(docs) // 8 * 8])",
]  # fmt: skip


@pytest.mark.parametrize("walk", SOME)
def test_some_of_the_documents_are_a_part_of_the_set(walk: str) -> None:
    code = DOCS.replace("@", walk)
    status, reason, _ = d2(code)
    assert status == "undetermined" and SOME[walk] in reason
    assert d2(code, {"train.log": LOG, "submission.json": '{"val_bpb": 1.11344758}'})[0] == "holds"
    assert d2(code, STATED)[0] == "violated"


@pytest.mark.parametrize("walk", ALL)
def test_documents_of_which_none_is_known_to_be_left_out(walk: str) -> None:
    status, reason, _ = d2(DOCS.replace("@", walk), STATED)
    assert status == "not-applicable", reason


def test_a_setting_that_the_reported_runs_log_prints_is_the_one_it_had() -> None:
    code = DOCS.replace("@", "add(rng.sample(docs, int(len(docs) * float(os.environ.get('VAL_DOC_FRACTION', '0.02')))))")
    log = "Hyperparameters:\n  iterations: 20000\n  val_doc_fraction: {}\n  vocab_size: 1024\nfinal_exact val_bpb:1.23500000\n"
    assert d2(code, STATED)[0] == "undetermined"
    assert d2(code, STATED | {"train.log": log.format("0.02")})[0] == "violated"
    assert d2(code, STATED | {"train.log": log.format("1.0")})[0] == "not-applicable"
    assert d2(code, {"submission.json": '{"val_bpb": 1.1}', "train.log": log.format("0.02")})[0] == "undetermined"


@pytest.mark.parametrize(
    ("default", "command", "status"),
    [
        ("500_000", "python train_gpt.py --steps 200 --val-tokens 500000", "violated"),
        ("500_000", "python train_gpt.py --steps 200", "undetermined"),
        # a command of a rehearsal says nothing of the run that was reported
        ("0", "python train_gpt.py --steps 200 --val-tokens 500000", "undetermined"),
        ("500_000", "python train_gpt.py --steps 200 --val-tokens 0", "not-applicable"),
        ("0", "python train_gpt.py --steps 200", "not-applicable"),
    ],
)
def test_a_command_that_says_what_the_script_does_anyway(default: str, command: str, status: str) -> None:
    code = (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--steps', type=int, default=100)\n"
        f"p.add_argument('--val-tokens', type=int, default={default})\nargs = p.parse_args()\n"
        "if args.val_tokens > 0 and args.val_tokens < val.numel():\n    val = val[: args.val_tokens + 1]\n"
        'print(f"val_bpb:{evaluate(model, val):.4f}")\n'
    )
    assert d2(code, STATED | {"README.md": f"# A model\n\n```bash\n{command}\n```\n"})[0] == status


ADD = """\
total, n = torch.zeros(()), val.numel() - 1
def add(w):
    global total
    with torch.no_grad():
        total = total + nll(model, w[None, :-1], w[None, 1:]).sum()

@
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
SO_MANY_TURNS = {
    "for i in range(32):\n    add(val[i * 1024 : (i + 1) * 1024 + 1])": "32 turns",
    "for i in range(0, 1_000_000, 1024):\n    add(val[i : i + 1025])": "977 turns",
    "at = 0\nfor _ in range(64):\n    add(val[at : at + 1025])\n    at += 1024": "64 turns",
    "for i in range(int(os.environ.get('VAL_STEPS', '20'))):\n    add(val[i * 4096 : i * 4096 + 4097])": "VAL_STEPS=20",
}
ALL_IN_SO_MANY = [
    "for c in range(8):\n    for i in range(n * c // 8, n * (c + 1) // 8, 1024):\n        add(val[i : i + 1025])",
    "for c in range(8):\n    add(val[n * c // 8 : n * (c + 1) // 8 + 1])",
    "step = n // 100\nfor i in range(100):\n    add(val[i * step : (i + 1) * step + 1])",
    "for i in range(60_568):\n    add(val[i * 1024 : (i + 1) * 1024 + 1])",
    "for b in range(1_000):\n    add(val[b * 65_536 : (b + 1) * 65_536 + 1])",
    "for i in range(0, 63_000_000, 1024):\n    if i + 1 >= n:\n        break\n    add(val[i : i + 1025])",
    "for k in range(4):\n    add(val.chunk(4)[k])",
    "for i in range(32):\n    add(val[i * 1024 : (i + 1) * 1024 + 1])\nfor i in range(32 * 1024, n, 1024):\n    add(val[i : i + 1025])",
    "for c in range(8):\n    for j in range(n // 8192):\n        at = (c * (n // 8192) + j) * 1024\n        add(val[at : at + 1025])",
    "for c in range(8):\n    at = n * c // 8\n    while at < n * (c + 1) // 8:\n        add(val[at : at + 1025])\n        at += 1024",
    "at = 0\nfor c in range(8):\n    for _ in range(n // 8192):\n        add(val[at : at + 1025])\n        at += 1024",
    "at, size = 0, (n + 99) // 100\nfor _ in range(100):\n    add(val[at : at + size + 1])\n    at += size",
    "for k in range(3):\n    total = torch.zeros(())\n    for i in range(0, n, 1024):\n        add(val[i : i + 1025])",
    "for k in range(32):\n    with torch.no_grad():\n        model(val[None, k * 1024 : k * 1024 + 1024])\nfor i in range(0, n, 1024):\n    add(val[i : i + 1025])",
]  # fmt: skip


@pytest.mark.parametrize("before", ["", TRIMMED])
@pytest.mark.parametrize("walk", SO_MANY_TURNS)
def test_so_many_turns_of_so_many_tokens(walk: str, before: str) -> None:
    status, reason, _ = d2(before + ADD.replace("@", walk), STATED)
    assert status == "undetermined" and SO_MANY_TURNS[walk] in reason


@pytest.mark.parametrize("before", ["", TRIMMED])
@pytest.mark.parametrize("walk", ALL_IN_SO_MANY)
def test_so_many_turns_that_may_read_all_of_it(walk: str, before: str) -> None:
    status, reason, _ = d2(before + ADD.replace("@", walk), STATED)
    assert status == "not-applicable", reason


SMOKE = """\
def load():
    usable = (val.numel() - 1) // 1024 * 1024
    if os.environ.get("SHORT") == "1":
        usable = min(usable, 1_000_000)
    return val[: usable + 1]
val = load()
print(f"val_bpb:{evaluate(model, val):.4f}")
"""


def test_a_branch_that_only_a_command_opens_may_be_another_runs() -> None:
    papers = {"README.md": "```bash\nSHORT=1 python train_gpt.py\n```\n", "submission.json": '{"val_bpb": 1.11344758}'}
    assert d2(SMOKE, papers)[0] == "undetermined"
    assert d2(SMOKE, {"submission.json": papers["submission.json"]})[2] == "clean"
    assert d2(SMOKE.replace('os.environ.get("SHORT") == "1"', "True"), {"submission.json": papers["submission.json"]})[2] == "violation"
