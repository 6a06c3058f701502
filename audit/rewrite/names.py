"""Other names: for everything that the script itself defines, and for what it imports."""

from __future__ import annotations

import ast
import random
from collections.abc import Mapping

import libcst as cst

from audit.rewrite.base import BUILTINS, Fresh, NothingToRewrite, concrete, parse, uses

#: Attributes that belong to libraries too: a script's own method of such a name keeps it.
LIBRARY = frozenset(
    """forward step state_dict load_state_dict zero_grad backward train eval parameters named_parameters
    size shape stride view numel item tolist numpy data grad weight bias device dtype to cpu cuda float half
    double bfloat16 int long bool sum mean max min abs exp log sqrt pow clamp round norm std var argmax
    argmin topk sort gather scatter_add_ scatter_ index_add_ add_ mul_ copy_ zero_ fill_ detach clone
    flatten reshape transpose permute squeeze unsqueeze expand repeat contiguous update get items keys
    values pop append extend add remove clear copy read write close open split join strip encode decode
    format replace startswith endswith lower upper count index insert reverse tokens next apply compile
    forward_pre_hook register_buffer register_parameter register_forward_hook modules children buffers
    param_groups state defaults group name path exists glob stem parent read_text read_bytes write_text
    write_bytes put send recv start run wait poll kill result submit map encode_as_ids vocab_size
    is_byte is_control is_unknown is_unused id_to_piece T mT real imag ndim nbytes itemsize fit transform
    hidden context seq_len batch_size""".split()
)


class _Rename(cst.CSTTransformer):
    def __init__(self, names: Mapping[str, str], attributes: Mapping[str, str]) -> None:
        self.names, self.attributes = names, attributes

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        new = self.names.get(original_node.value)
        return updated_node.with_changes(value=new) if new else updated_node

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:
        old = original_node.attr.value
        return updated_node.with_changes(attr=cst.Name(self.attributes.get(old, old)))

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        return updated_node.with_changes(keyword=original_node.keyword)


def rename(text: str, chance: random.Random) -> tuple[str, str]:
    """New names for all variables, functions, classes, methods and settings of the script."""
    tree = parse(text)
    found = uses(tree)
    if found.loaded & {"locals", "eval", "exec", "globals"}:
        raise NothingToRewrite("the script reads its own names at run time")
    kept = BUILTINS | found.imported | found.keywords | found.strings | found.fields | {"self", "cls", "_"}
    names = {n for n in found.bound if n not in kept and not n.startswith("__")}
    members = {
        n for n in found.members
        if n not in kept and n not in LIBRARY and n not in found.foreign and not n.startswith("__")
    }  # fmt: skip
    # A method and a variable of one name: the method must be renamable for the variable to be.
    names -= found.members - members
    if not names:
        raise NothingToRewrite("the script binds no name that could be changed")
    fresh = Fresh(found.all(), chance)
    new = {name: fresh() for name in sorted(names | members)}
    out = concrete(text).visit(_Rename(new, {m: new[m] for m in members}))
    return out.code, f"renamed {len(new)} names ({fresh.style})"


class _Alias(cst.CSTTransformer):
    """Gives module-level imports another local name and uses it everywhere."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def leave_ImportAlias(
        self, original_node: cst.ImportAlias, updated_node: cst.ImportAlias
    ) -> cst.ImportAlias:
        local = original_node.evaluated_alias or original_node.evaluated_name
        new = self.names.get(local)
        if new is None:
            return original_node
        space = cst.SimpleWhitespace(" ")
        return original_node.with_changes(
            asname=cst.AsName(cst.Name(new), whitespace_before_as=space, whitespace_after_as=space)
        )

    def leave_ImportFrom(self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom) -> cst.ImportFrom:
        return updated_node.with_changes(module=original_node.module)

    leave_Name = _Rename.leave_Name  # type: ignore[assignment]
    attributes: Mapping[str, str] = {}
    leave_Attribute = _Rename.leave_Attribute  # type: ignore[assignment]
    leave_Arg = _Rename.leave_Arg  # type: ignore[assignment]


def alias_imports(text: str, chance: random.Random) -> tuple[str, str]:
    """``import torch as q``, and so for every import that allows it."""
    tree = parse(text)
    found = uses(tree)
    local: set[str] = set()
    fixed: set[str] = {"annotations"}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for a in node.names:
                name = a.asname or a.name
                if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                    fixed.add(name)
                elif "." in name or name == "*":
                    fixed.add(name.split(".")[0])
                else:
                    local.add(name)
    local -= fixed | found.bound | found.strings | found.keywords
    if not local:
        raise NothingToRewrite("no import can be given another name")
    fresh = Fresh(found.all(), chance)
    new = {name: fresh() for name in sorted(local)}
    return concrete(text).visit(_Alias(new)).code, f"aliased {len(new)} imports ({fresh.style})"
