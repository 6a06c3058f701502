"""A switch that the title names, where nothing else says how the run was set."""

from __future__ import annotations

import pytest

from audit.evidence.collect import read_facts
from audit.knobs import resolve
from audit.source import MemoryTree, SubmissionFiles
from tests.audit.knobs.test_knobs import knobs

SCRIPT = """
import os
ttt = bool(int(os.environ.get("TTT_ENABLED", "0")))
cache = bool(int(os.environ.get("NGRAM_CACHE", "0")))
average = bool(int(os.environ.get("EMA_ENABLED", "1")))
rank = int(os.environ.get("RANK", "0"))
"""


def switched(extra: dict[str, str]) -> dict[str, str]:
    found = knobs(extra, script=SCRIPT)
    assert all(v.ambiguous for v in found.values.values())
    return {k: v.value for k, v in found.values.items()}


@pytest.mark.parametrize("title", ["# 10L + Standard TTT", "intro\n# Record: TTT, EMA and low rank\n"])
def test_the_readmes_title_or_the_metadata_name_it(title):
    assert switched({"README.md": title}) == {"TTT_ENABLED": "1"}
    assert switched({"submission.json": '{"name": "x", "blurb": "AdamW TTT, n-gram cache"}'}) == {"TTT_ENABLED": "1"}
    assert switched({"submission.json": '{"name": "TTT with an NGRAM cache"}'}) == {"TTT_ENABLED": "1", "NGRAM_CACHE": "1"}


@pytest.mark.parametrize(
    "papers",
    [
        {"README.md": "# 10 layers, no TTT"},
        {"README.md": "# 10 layers without any TTT"},
        {"README.md": "# 10 layers\n\nWe also tried TTT."},
        {"README.md": "# Standard TTT", "train.log": "step:1\nfinal val_bpb:1.1\n"},
        {"submission.json": "[1]", "README.md": "TTT"},
    ],
)
def test_a_denial_a_mention_elsewhere_or_a_log_leave_the_default(papers):
    assert switched(papers) == {}


def test_a_command_leaves_the_default_of_what_it_does_not_set():
    found = knobs({"README.md": "# Standard TTT\n```\nEMA_ENABLED=1 torchrun train_gpt.py\n```"}, script=SCRIPT)
    assert found.lookup("TTT_ENABLED") is None


TABLE = "# 10L + Standard TTT\n\nval_bpb: 1.1100\n\n| Seed | Post-quant val_bpb | {} val_bpb |\n|---|---|---|\n| 1 | {} | {} |\n"


@pytest.mark.parametrize(
    ("readme", "certain"),
    [
        (TABLE.format("Post-TTT", "1.1510", "**1.1100**"), True),
        (TABLE.format("Post-TTT", "1.1100", "1.0900"), False),
        (TABLE.format("Pre-TTT", "1.1510", "1.1100"), False),
        (TABLE.format("Post-EMA", "1.1510", "1.1100"), False),
    ],
)
def test_the_papers_call_the_stated_score_the_one_after_it(readme, certain):
    texts = {"r/README.md": readme, "r/train_gpt.py": SCRIPT}
    files = SubmissionFiles(target="t", tree=MemoryTree(texts), primary="r/train_gpt.py", paths=list(texts), changed=list(texts))
    found = resolve(files, {"r/train_gpt.py": SCRIPT}, {}, read_facts(files))
    assert found.values["TTT_ENABLED"].ambiguous is not certain
