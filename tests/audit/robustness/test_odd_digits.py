"""Digits that are no numbers (``²``, ``½``), numbers in other scripts (``٣``), and junk made of them: in scripts and in papers."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.context import Options
from audit.engine import audit_files
from audit.lower.repair import spaced
from audit.source import MemoryTree, SubmissionFiles

QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
PIECES = [
    "²", "³½", "①", "٣", "१", "0x", "0b", "1_", "1e", ".5", "else", "for", "in", "if", "lambda", "'", '"', "'''", '"""', "f'", 'f"{',
    "{", "}", "\\", "\n", "\t", "#", "(", ")", "[", "]", " ", "import os\n", "def f():\n ", "\x00", "\r", "\x0c", "\ufeff", "é", "𝟙",
    "exec(", "cross_entropy(x, y)", "val_bpb", "=", "@", ":", "%%x\n", "!ls\n", "1if 1else 2",
]  # fmt: skip
JUNK = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    st.binary(max_size=400).map(lambda data: data.decode("latin-1")),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=JUNK)
def test_spaces_are_put_and_nothing_else_is_changed(text: str) -> None:
    out, inserted = spaced(text)
    at = set(inserted)
    assert "".join(c for n, c in enumerate(out) if n not in at) == text
    assert all(out[n] == " " for n in inserted)


@QUICK
@given(script=JUNK, paper=JUNK)
def test_odd_digits_end_in_a_verdict(script: str, paper: str) -> None:
    texts = {
        "train_gpt.py": script,
        "README.md": f"# X\n\n| Seed | val_bpb |\n|---|---|\n| ² | 1.2 |\n{paper}",
        "submission.json": '{"val_bpb": 1.1, "seeds": ["²", "٣"], "seed_results": {"²": {"val_bpb": 1.1}}, "num_seeds": "³"}',
        "train_seed².log": f"step:1/2 val_bpb:1.²\nval_bpb:1.2\n{paper}",
        "run.sh": f"SEED=² VOCAB_SIZE=½ torchrun --nproc_per_node=² train_gpt.py --seed ³\n{script}",
        "kernel.c": script,
    }
    tree = MemoryTree({path: text.encode("utf-8", "surrogatepass") for path, text in texts.items()})
    files = SubmissionFiles(target="t", tree=tree, primary="train_gpt.py", paths=list(texts), changed=list(texts))
    found = audit_files(files, Options())
    assert found.reason
    assert not [o.reason for o in found.obligations if "a stage of the audit failed" in o.reason or "check failed" in o.reason]
