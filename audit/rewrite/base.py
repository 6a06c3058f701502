"""What the rewrites share: parsing, fresh names, and which names a script uses for what."""

from __future__ import annotations

import ast
import builtins
import keyword
import random
import warnings
from dataclasses import dataclass, field

import libcst as cst

BUILTINS = frozenset(dir(builtins))


class NothingToRewrite(ValueError):
    """The script has no place for the rewrite; the message says what was looked for."""


def parse(text: str) -> ast.Module:
    """The script's tree; NothingToRewrite where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NothingToRewrite(f"the script cannot be parsed: {error}") from None


def concrete(text: str) -> cst.Module:
    """The script's concrete tree, which keeps its spacing and comments."""
    try:
        return cst.parse_module(text)
    except (cst.ParserSyntaxError, RecursionError) as error:
        raise NothingToRewrite(f"libcst cannot parse the script: {type(error).__name__}") from None


@dataclass(slots=True)
class Uses:
    """What each name of a script is used for, over all scopes at once."""

    bound: set[str] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)
    keywords: set[str] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)
    #: attributes of classes without bases, and methods of any class
    members: set[str] = field(default_factory=set)
    #: other names bound in a class body: fields of dataclasses, buffers
    fields: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    #: attributes read off an imported name
    foreign: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def all(self) -> set[str]:
        return (
            self.bound
            | self.imported
            | self.keywords
            | self.loaded
            | self.attributes
            | self.members
            | self.fields
        )


def uses(tree: ast.Module) -> Uses:
    found = Uses()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.imported |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.bound.add(node.name)
            found.functions.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.bound.add(node.name)
            _class(node, found)
        elif isinstance(node, ast.arg):
            found.bound.add(node.arg)
        elif isinstance(node, ast.Name):
            (found.loaded if isinstance(node.ctx, ast.Load) else found.bound).add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.bound.add(node.name)
        elif isinstance(node, ast.keyword) and node.arg:
            found.keywords.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.strings.add(node.value)
        elif isinstance(node, ast.Attribute):
            found.attributes.add(node.attr)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in found.imported:
                found.foreign.add(node.attr)
    return found


def _class(node: ast.ClassDef, found: Uses) -> None:
    for item in node.body:
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.members.add(item.name)
            continue
        names = {n.id for n in ast.walk(item) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        plain = not node.bases and not node.decorator_list
        (found.members if plain else found.fields).update(names)


_ACCUSING = ("prequant_ttt", "leak_val", "oracle_pick", "two_pass_rescore", "ttt_adapt", "slot_fit",
             "val_calibrate", "peek_target", "legal_eval", "score_first_safe", "causal_only", "verified_clean",
             "train_only", "self_generated", "warmup_random", "context_hash")  # fmt: skip
_SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo zu".split()


class Fresh:
    """New identifiers in one of three styles that collide with nothing in the script."""

    def __init__(self, taken: set[str], chance: random.Random, style: str | None = None) -> None:
        self.taken = set(taken) | BUILTINS | set(keyword.kwlist)
        self.chance = chance
        self.style = style or chance.choice(("short", "syllables", "lying"))
        self.count = 0

    def __call__(self) -> str:
        while True:
            self.count += 1
            if self.style == "short":
                name = f"{self.chance.choice('abcdefghijkmnpqrstuvwxyz')}{self.count}"
            elif self.style == "syllables":
                name = "".join(self.chance.choice(_SYLLABLES) for _ in range(3))
            else:
                name = f"{self.chance.choice(_ACCUSING)}_{self.count}"
            if name not in self.taken:
                self.taken.add(name)
                return name
