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
