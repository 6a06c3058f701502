"""Where validation tokens come from: files picked by their names, read into a buffer, or named by an option."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, audit_text, text_files
from audit.rules.flow import PRELUDE

READ = """
from pathlib import Path
import argparse, os
def read(p):
    return torch.from_numpy(np.fromfile(p, dtype=np.uint16).astype(np.int64))
def find(d):
    bins = sorted(Path(d).glob("*.bin"))
    @@
tokens = torch.cat([read(p) for p in find("./data")])
print(f"val_bpb:{evaluate(model, tokens):.4f}")
"""


def scored(source: str) -> bool:
    return "no place was found" not in audit_text(PRELUDE + source).reason


@pytest.mark.parametrize(
    "pick",
    [
        'return [p for p in bins if "val" in p.name]',
        'return [p for p in bins if p.name.startswith("fineweb_val")]',
        'return [p for p in bins if fnmatch.fnmatch(str(p), "*_val_*") and p.exists()]',
        "out = []\n    for p in bins:\n        if 'validation' in os.path.basename(p):\n            out.append(p)\n    return out",
        "a, b = [], []\n    for p in bins:\n        (a if 'val' in p.name else b).append(str(p))\n    return a",
        'return [os.path.join(d, f) for f in os.listdir(d) if "val" in f]',
    ],
)
def test_a_test_on_the_name_picks_the_split(pick):
    assert scored(READ.replace("@@", pick))


@pytest.mark.parametrize(
    "pick",
    [
        "return bins",
        'return [p for p in bins if "train" in p.name]',
        'return [p for p in bins if "interval" in p.name]',
        "a, b = [], []\n    for p in bins:\n        (a if 'val' in p.name else b).append(str(p))\n    return b",
    ],
)
def test_what_no_test_picks_is_no_validation_set(pick):
    assert not scored(READ.replace("@@", pick))


def test_a_read_into_a_buffer_fills_the_buffer():
    source = READ.replace("    return torch.from_numpy(np.fromfile(p, dtype=np.uint16).astype(np.int64))\n", """\
    with open(p, "rb") as f:
        tokens = torch.empty(os.path.getsize(p) // 2, dtype=torch.uint16)
        f.readinto(memoryview(tokens.numpy()))
    return tokens
""")  # fmt: skip
    assert scored(source.replace("@@", 'return [p for p in bins if "val" in p.name]'))
    assert not scored(source.replace("@@", 'return [p for p in bins if "val" in p.name]').replace("f.readinto", "print"))


def test_a_long_parser_in_a_function_of_its_own_is_followed():
    options = "".join(f'    p.add_argument("--option-{n}", type=int, default={n}, help="one of many")\n' for n in range(40))
    parser = f'def options():\n    p = argparse.ArgumentParser()\n{options}    p.add_argument("--files", default="")\n    return p\n'
    source = READ.replace("def find(d):", parser + "def find(d):").replace(
        "@@", 'args = options().parse_args()\n    return sorted(Path(".").glob(args.files or os.path.join(d, "fineweb_val_*.bin")))'
    )
    assert scored(source)


OPENED = """\
import glob, os
import numpy as np
import torch
_open = {}
def shard(path):
    key = str(path)
    if key not in _open:
        _open[key] = np.memmap(path, dtype="<u2", mode="r", offset=1024)
    return torch.from_numpy(_open[key])
"""


def opened(training: str) -> set[str]:
    tail = PRELUDE[PRELUDE.index("class Model") :]
    code = OPENED + "import torch.nn as nn, torch.nn.functional as F\n" + tail
    code = code.replace('shard("data/fineweb_train_*.bin")', "torch.cat([shard(p) for p in glob.glob('data/fineweb_train_*.bin')])")
    code = code.replace('shard("data/fineweb_val_*.bin")', "torch.cat([shard(p) for p in glob.glob('data/fineweb_val_*.bin')])")
    assert "memmap" in code and code.count("glob.glob") == 2
    code += f"""
opt = torch.optim.SGD(model.parameters(), lr=1e-2)
for i in range(0, 1_000_000, 1024):
    nll(model, {training}[None, i : i + 1024], {training}[None, i + 1 : i + 1025]).mean().backward()
    opt.step()
print(f"val_bpb:{{evaluate(model, val):.4f}}")
"""
    return {f.rule for f in audit_text(code).findings if f.severity == "violation"}


def test_a_dictionary_of_opened_shards_keeps_them_apart():
    assert opened("train") == set()
    assert "F1" in opened("val") or "F15" in opened("val")


@pytest.mark.parametrize(("listed", "found"), [("", True), ("__all__ = ['evaluate', 'model', 'val']\n", True), ("__all__ = ['model']\n", False)])
def test_a_star_import_brings_what_a_module_shows_and_not_its_name(listed, found):
    main = 'from base import *\nif __name__ == "__main__":\n    print(f"val_bpb:{evaluate(model, val):.4f}")\n'
    files = text_files({"base.py": PRELUDE + listed, "train_gpt.py": main}, "train_gpt.py")
    assert (audit_files(files, Options()).verdict == "clean") is found


KEPT = """\
_kept = {}
def tokens_of(path):
    key = str(path)
    got = _kept.get(key)
    if got is not None:
        return got
    _kept[key] = got = np.memmap(path, dtype="<u2", mode="r", offset=1024)
    return got

class Args:
    train_files, val_files = "data/fineweb_train_*.bin", "data/fineweb_val_*.bin"

class Loader:
    def __init__(self, args):
        self.files = sorted(glob.glob(args.train_files))
    def next_batch(self, n):
        at = int(np.random.randint(10_000_000))
        return torch.from_numpy(np.array(tokens_of(self.files[0])[at : at + n], dtype=np.int64))[None]

def hessians(net, loader):
    stats = {}
    def hook(module, inputs, output):
        stats[module] = inputs[0].abs().mean(0)
    handles = [m.register_forward_hook(hook) for m in net.modules()]
    with torch.no_grad():
        for _ in range(16):
            net(loader.next_batch(1024))
    for h in handles:
        h.remove()
    return stats

args = Args()
loader = Loader(args)
for _ in range(10):
    optimizer.zero_grad()
    batch = loader.next_batch(1025)
    nll(model, batch[:, :-1], batch[:, 1:]).mean().backward()
    optimizer.step()
@@
stats = hessians(model, Loader(args) if fresh else loader)
torch.save({n: torch.round(p / stats[n]) for n, p in model.state_dict().items()}, "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(scored, torch.from_numpy(np.array(tokens_of(args.val_files), dtype=np.int64))):.4f}")
"""


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        ("fresh = True", False),
        ("fresh = False", False),
        ("fresh = False\nloader.files = sorted(glob.glob(args.train_files))[1:]", False),
        ("fresh = False\nseen = tokens_of(sorted(glob.glob(args.val_files))[0]).shape", False),
        ("import copy\nfresh, other = True, copy.copy(args)\nother.train_files = other.val_files", False),
        ("fresh = True\nargs.train_files = args.val_files", True),
        ("import copy\nfresh, args = True, copy.copy(args)\nargs.train_files = args.val_files", True),
        ("fresh = False\nloader.files = sorted(glob.glob(args.val_files))", True),
    ],
)
def test_files_that_a_dictionary_keeps_are_told_apart_where_a_loader_is_given_others(edit, found):
    findings = audit_text(PRELUDE + KEPT.replace("@@", edit)).findings
    assert ("F11" in {f.rule for f in findings if f.severity == "violation"}) is found
