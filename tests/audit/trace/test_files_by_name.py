"""Where validation tokens come from: files picked by their names, read into a buffer, or named by an option."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
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
