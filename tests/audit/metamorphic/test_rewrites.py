"""The rewrites themselves: deterministic, valid, changing what they say and nothing else."""

import ast

import pytest

from audit.peel import peel
from audit.rewrite import PRESERVING, NothingToRewrite, random_rewrite
from audit.rewrite.base import concrete
from tests.audit.fixture_cases import SUBMISSIONS


def plain(base: str) -> str:
    return (SUBMISSIONS / base / "plain" / "train_gpt.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("base", ["nano", "dense", "ngram", "tilted"])
def test_the_same_seed_gives_the_same_text_and_another_seed_another(base: str) -> None:
    text = plain(base)
    first = [random_rewrite(text, seed)[0] for seed in range(4)]
    assert first == [random_rewrite(text, seed)[0] for seed in range(4)]
    assert len(set(first)) > 2


@pytest.mark.parametrize("base", ["nano", "dense", "ngram", "tilted", "atlas"])
@pytest.mark.parametrize("rewrite", PRESERVING, ids=lambda r: r.__name__)
def test_a_rewrite_leaves_python_that_binds_every_name_it_reads(base: str, rewrite) -> None:
    import random

    text = plain(base)
    try:
        out, said = rewrite(text, random.Random(3))
    except NothingToRewrite:
        return
    assert said and out != text
    ast.parse(out)
    if rewrite.__name__ != "pack":
        assert unbound(out) <= unbound(text)


def unbound(text: str) -> set[str]:
    """Names that are read and never bound anywhere in the script."""
    tree = ast.parse(text)
    bound: set[str] = set()
    read: set[str] = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Name):
            (read if isinstance(n.ctx, ast.Load) else bound).add(n.id)
        elif isinstance(n, (ast.FunctionDef, ast.ClassDef)):
            bound.add(n.name)
        elif isinstance(n, ast.arg):
            bound.add(n.arg)
        elif isinstance(n, ast.alias):
            bound.add((n.asname or n.name).split(".")[0])
        elif isinstance(n, ast.ExceptHandler) and n.name:
            bound.add(n.name)
    return read - bound


def test_renaming_keeps_library_names_keywords_and_strings() -> None:
    import random

    from audit.rewrite.names import rename

    text = (
        "import os, torch\n"
        "class Knobs:\n    steps = int(os.environ.get('STEPS', 3))\n"
        "def learn(model, dim=1):\n"
        "    total = 0\n"
        "    for step in range(Knobs.steps):\n"
        "        total += model(step).sum(dim=dim).item()\n"
        "    return total\n"
        "print(learn(torch.nn.Linear(1, 1), dim=0), getattr(Knobs, 'steps'))\n"
    )
    out, _ = rename(text, random.Random(1))
    assert "'STEPS'" in out and "sum(dim=" in out and ".item()" in out and "torch.nn.Linear" in out
    assert "Knobs" not in out and "learn" not in out and "total" not in out
    # read by its name as a string: it has to stay
    assert "'steps'" in out and "    steps = " in out


def test_packing_is_undone_by_peeling() -> None:
    import random

    from audit.rewrite.pack import pack

    text = plain("ngram")
    for seed in range(8):
        out, said = pack(text, random.Random(seed))
        peeled = peel(out.encode(), "train_gpt.py", lambda _name: None)
        assert peeled.text == text, said


def test_a_packed_script_is_unpacked_before_it_is_rewritten() -> None:
    packed = (SUBMISSIONS / "dense" / "slot_packed" / "train_gpt.py").read_text(encoding="utf-8")
    out, said = random_rewrite(packed, 1, "flip")
    assert "unpacked" in said and "def eval_delta" in out


def test_a_flip_moves_the_update_above_the_score_and_back() -> None:
    legal = (
        "for c in range(9):\n"
        "    nll = F.cross_entropy(model(x[c]), y[c])\n"
        "    total += nll.item()\n"
        "    if c == 8:\n        break\n"
        "    fit(model, x[c], y[c])\n"
        "def fit(model, a, b):\n"
        "    F.cross_entropy(model(a), b).backward()\n"
    )
    out, said = random_rewrite(legal, 5, "flip")
    assert "above" in said and "break" not in out
    assert out.index("fit(model, x[c]") < out.index("nll = F.cross")
    back, said = random_rewrite(out, 5, "flip")
    assert "below" in said
    assert back.index("nll = F.cross") < back.index("fit(model, x[c]")


def test_a_loss_that_is_shared_by_score_and_update_is_no_place_to_flip() -> None:
    text = (
        "for c in range(9):\n"
        "    nll = F.cross_entropy(model(x[c]), y[c])\n"
        "    total += nll.item()\n"
        "    nll.backward()\n"
    )
    with pytest.raises(NothingToRewrite, match="no place to flip"):
        random_rewrite(text, 1, "flip")


def test_what_is_no_python_is_said_to_be_none() -> None:
    with pytest.raises(NothingToRewrite, match="cannot be parsed"):
        random_rewrite("def (:\n", 1)
    with pytest.raises(ValueError, match="neither"):
        random_rewrite("x = 1\n", 1, "twist")  # type: ignore[arg-type]


def test_the_concrete_tree_keeps_a_script_as_it_is() -> None:
    assert concrete(plain("nano")).code == plain("nano")
