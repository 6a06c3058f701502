"""The house's layering: arrows run downwards only, no circles, lazy imports included."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from audit.contracts import Command
from audit.program import load, registered

ROOT = Path(__file__).resolve().parent.parent
#: wing -> the wings it may import
MAY_IMPORT = {
    "audit": {"audit"},
    "harness": {"harness", "audit"},
    "reference_model": {"reference_model", "harness", "audit"},
}
#: modules a wing may not import anywhere, function bodies included
FORBIDDEN = {"audit": {"torch", "triton", "sentencepiece", "huggingface_hub"}}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def source_modules() -> dict[str, Path]:
    return {module_name(p): p for wing in MAY_IMPORT for p in sorted((ROOT / wing).rglob("*.py"))}


def imports_of(name: str, path: Path, known: set[str]) -> set[str]:
    """Every module that ``path`` imports, at any depth; ``from a import b`` counts as a.b if that is a module.

    Imports under ``if TYPE_CHECKING`` never run and do not count.
    """
    found: set[str] = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - (node.level - 1)]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in known else base)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found - {name}


@cache
def graph() -> dict[str, set[str]]:
    modules = source_modules()
    known = set(modules)
    return {name: imports_of(name, path, known) for name, path in modules.items()}


@pytest.mark.parametrize("wing", sorted(MAY_IMPORT))
def test_arrows_run_downwards_only(wing: str) -> None:
    upward = [
        f"{name} -> {target}"
        for name, targets in graph().items()
        if name.split(".")[0] == wing
        for target in targets
        if target.split(".")[0] in MAY_IMPORT and target.split(".")[0] not in MAY_IMPORT[wing]
    ]
    assert upward == []


@pytest.mark.parametrize("wing", sorted(FORBIDDEN))
def test_a_wing_stays_free_of_heavy_packages(wing: str) -> None:
    heavy = [
        f"{name} -> {target}"
        for name, targets in graph().items()
        if name.split(".")[0] == wing
        for target in targets
        if target.split(".")[0] in FORBIDDEN[wing]
    ]
    assert heavy == []


def test_no_module_imports_itself_through_others() -> None:
    """Strongly connected components (Tarjan) of the import graph have one member each."""
    edges = {name: {t for t in targets if t in graph()} for name, targets in graph().items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def connect(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges[node]):
            if target not in index:
                connect(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            members = []
            while True:
                members.append(stack.pop())
                if members[-1] == node:
                    break
            if len(members) > 1:
                circles.append(sorted(members))

    for name in sorted(edges):
        if name not in index:
            connect(name)
    assert circles == []


def test_every_registered_command_is_a_command_under_its_own_name() -> None:
    for name, target in registered("referee.commands"):
        command = load(target)
        assert isinstance(command, Command), target
        assert command.name == name


def loaded_after(code: str) -> set[str]:
    """Top-level packages in ``sys.modules`` after running ``code`` in a fresh interpreter."""
    script = f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit:\n    pass\nprint('\\n@' + ' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return {m.split(".")[0] for m in result.stdout.rpartition("@")[2].split()}


@pytest.mark.parametrize(
    "code",
    [
        "import audit",
        "from harness.cli import main; main(['audit', '--help'])",
        "from harness.cli import main; main(['--help'])",
        "from harness.cli import main; main(['eval', '--help'])",
        "from harness.cli import main; main(['train', '--help'])",
    ],
)
def test_help_and_the_auditor_do_not_load_torch(code: str) -> None:
    assert not loaded_after(code) & {"torch", "triton", "sentencepiece"}
