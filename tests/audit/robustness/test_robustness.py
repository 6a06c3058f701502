"""Whatever a submission contains, an audit ends with a verdict: no crash, no hang, nothing executed."""

from __future__ import annotations

import io
import random
import subprocess
import tokenize
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.context import Options
from audit.engine import audit_files, audit_text
from audit.model import Submission
from audit.source import MemoryTree, SubmissionFiles, open_git

ROOT = Path(__file__).resolve().parents[3]
BASES = [
    ROOT / "fixtures/submissions/dense/plain/train_gpt.py",
    ROOT / "fixtures/submissions/atlas/plain/train_gpt.py",
]
QUICK = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def judged(found: Submission) -> Submission:
    """What every audit must satisfy, whatever it read."""
    assert found.verdict in ("violation", "clean", "undetermined")
    assert found.reason
    failed = [
        o.reason
        for o in found.obligations
        if "a stage of the audit failed" in o.reason or "check failed" in o.reason
    ]
    assert not failed
    return found


def tokens(text: str) -> list[str]:
    return [t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.string.strip()]


def damaged(text: str, seed: int) -> str:
    """A few tokens deleted, doubled, swapped or replaced; about half of the results still parse."""
    rng = random.Random(seed)
    words = tokens(text)
    lines = text.split("\n")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(lines))
        word = rng.choice(words)
        if word not in lines[at] or rng.random() < 0.3:
            kind = rng.randrange(3)
            if kind == 0:
                del lines[at]
            elif kind == 1:
                lines.insert(at, lines[rng.randrange(len(lines))])
            else:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
        else:
            lines[at] = lines[at].replace(word, rng.choice(["", rng.choice(words), word * 2]), 1)
    return "\n".join(lines)


@QUICK
@given(seed=st.integers(0, 10**6), base=st.sampled_from(BASES))
def test_damaged_scripts(seed: int, base: Path) -> None:
    judged(audit_text(damaged(base.read_text(), seed)))


@QUICK
@given(
    text=st.text(
        alphabet=st.sampled_from(list("()[]{}:,.=+-*'\"\\#\n\t abfor if in def exec lambda1")), max_size=400
    )
)
def test_junk_text(text: str) -> None:
    judged(audit_text(text))


@QUICK
@given(data=st.binary(max_size=2000))
def test_binary_junk(data: bytes) -> None:
    tree = MemoryTree({"train_gpt.py": data})
    files = SubmissionFiles(
        target="t", tree=tree, primary="train_gpt.py", paths=["train_gpt.py"], changed=["train_gpt.py"]
    )
    judged(audit_files(files, Options()))


LEARN = "import torch, glob\nval_tokens = torch.load('fineweb_val_000000.bin')\n"
HOSTILE = {
    "brackets": "x = " + "(" * 2000 + "1" + ")" * 2000,
    "open brackets": "f(" * 20_000,
    "a table in one line": "x = [" + "0, " * 500_000 + "]",
    "a string of 5 MB": "x = '" + "a" * 5_000_000 + "'",
    "a comment of 5 MB": "# " + "a" * 5_000_000,
    "a chain of attributes": "x = a" + ".b" * 30_000,
    "a chain of calls": "x = a" + "(1)" * 3_000,
    "ten thousand elifs": "if a:\n  x = 1\n" + "elif a:\n  x = 2\n" * 5_000,
    "deep indentation": "".join(" " * i + "if a:\n" for i in range(95)) + " " * 95 + "pass\n",
    "ten thousand functions": "".join(f"def f{i}(x): return f{i + 1}(x)\n" for i in range(3_000)) + "f0(1)\n",
    "recursion": LEARN + "def f(x):\n    return g(x) + f(x)\ndef g(x):\n    return f(x)\nprint(f(val_tokens))\n",
    "recursion through a class": "class A(A): pass\nclass B:\n    def __call__(self, x): return self(x)\nB()(1)\n",
    "a class that is its own base": "class A: pass\nA.x = A\nA.__bases__ = (A,)\nA().y.z()\n",
    "nested loops": LEARN + "".join("  " * i + f"for i{i} in val_tokens:\n" for i in range(18)) + "  " * 18 + "x = i0\n",
    "a loop without end": "while True:\n    x = [x]\n",
    "growing containers": "x = [1]\nfor i in range(10**9):\n    x = x + x\n    x = {i: x}\n    x = [x, x]\n",
    "huge numbers": "x = 10 ** 10 ** 10\ny = 'a' * 10 ** 12\nz = 1 << 10 ** 9\nw = [0] * 10 ** 12\nv = range(10 ** 18)\n",
    "many formats": "x = '%99999999999d' % 1\ny = f'{1:>99999999999}'\nz = '{:>9999999999}'.format(1)\n",
    "pathological regex": "import re\nre.match('(a+)+$', 'a' * 5000 + 'b')\n",
    "self-referential": "x = []\nx.append(x)\ny = {}\ny['y'] = y\nprint(x, y, x == x)\n",
    "star import of itself": "from train_gpt import *\nimport train_gpt\ntrain_gpt.train_gpt.x\n",
    "exotic names": "ª = 1\n变量 = ª\n𝐱 = 变量\nprint(x)\n",
    "nul": "x = 1\x00\n",
    "lone surrogates": "x = '\\ud800'\ny = '\udcff'\n",
    "form feeds and tabs": "if a:\n\tx = 1\n\f\n        y = 2\n",
    "decorators": "@a\n" * 500 + "def f(): pass\nf()\n",
    "parameters": "def f(" + ", ".join(f"a{i}=1" for i in range(3000)) + "): pass\nf()\n",
    "many knobs": "import os\n" + "".join(f"K{i} = os.environ.get('K{i}', K{i - 1} if {i} else 0)\n" for i in range(3000)),
    "alternations": LEARN + "".join(f"if unknown{i}:\n    f = lambda x: x + {i}\n" for i in range(200)) + "f(val_tokens)\n",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_scripts(name: str) -> None:
    judged(audit_text(HOSTILE[name], Options(budget_s=3.0)))


def test_cyclic_modules() -> None:
    texts = {
        "train_gpt.py": "import a\na.f(1)\n",
        "a.py": "import b\ndef f(x): return b.g(x)\n",
        "b.py": "import a\ndef g(x): return a.f(x)\n",
    }
    files = SubmissionFiles(
        target="t", tree=MemoryTree(texts), primary="train_gpt.py", paths=list(texts), changed=list(texts)
    )
    judged(audit_files(files, Options()))


def test_unreadable_never_ends_clean() -> None:
    for text in (
        "def (:\n",
        "x = " + "(" * 3000,
        "import zlib, base64\nexec(zlib.decompress(base64.b85decode(open('p').read())))\n",
    ):
        assert judged(audit_text(text)).verdict == "undetermined", text[:40]


def test_the_same_text_gives_the_same_verdict_twice() -> None:
    text = BASES[0].read_text()
    assert audit_text(text).as_json() == audit_text(text).as_json()


def test_links_in_a_circle_inside_a_revision(tmp_path: Path) -> None:
    def git(*args: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path), *args]
        subprocess.run(command, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "start")
    git("checkout", "-q", "-b", "work")
    (tmp_path / "train_gpt.py").write_text(BASES[0].read_text())
    (tmp_path / "README.md").symlink_to("submission.json")
    (tmp_path / "submission.json").symlink_to("README.md")
    git("add", "."), git("commit", "-q", "-m", "entry")
    (files,) = open_git(str(tmp_path), "work", "main")
    assert files.read("README.md") is None
    judged(audit_files(files, Options()))
