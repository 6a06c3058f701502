"""How many bytes of code a submission needs to read its artifact: the reading path as one compressed script.

The contest counts every byte of code that runs, installed packages excepted. The reader is bundled from this
package's own modules (docstrings, comments, annotations and the writing half dropped) and compressed as
submissions do it, so the figure is that of code which could be shipped, not an estimate.
"""

from __future__ import annotations

import ast
import base64
import lzma
from pathlib import Path
from typing import Any

_RUNNER = "import base64,lzma;exec(lzma.decompress(base64.b85decode(''),lzma.FORMAT_RAW,None,[{'id':33,'preset':9}]))"
_HERE = Path(__file__).resolve().parent
#: What each module contributes to the reading path, by name; imports between them disappear in the bundle.
_IMPORTS = """import hashlib, json, lzma, struct, zlib
from dataclasses import dataclass, field
from math import prod
import brotli, constriction, numpy as np, zstandard
"""
_READING: dict[str, set[str]] = {
    "grids": {"INTEGER_GRIDS", "FLOAT_GRIDS", "matrix_shape", "Record"},
    "codecs": {
        "Corrupt", "_ZSTD_WINDOW_LIMIT", "_zstd_decode", "_lzma_decode", "_zlib_decode", "_brotli_decode", "DECODERS",
        "GENERAL", "decompress",
    },
    "layout": {"PLANES", "_unshuffle", "plane_sizes", "records_from_planes", "unpack_bits"},
    "adaptive": {
        "FIRST_BLOCK", "LAST_BLOCK", "SHARED_WEIGHT", "PRIOR_WEIGHT", "_UNIT", "bell", "Tables", "blocks",
        "decode_symbols",
    },
    "rowcoder": {
        "STEPS", "LOWEST", "HIGHEST", "LEVEL_CLIP", "_ENTRY", "_ROWS", "_COLUMNS", "_REFERENCES", "_DIFFERENCE", "_ALONE", "_wrap", "_untold", "MAX_RATIO", "_class_level",
        "_Coder", "_classes", "_by_class", "decode_plane", "_decode_one",
    },
    "container": {
        "MAGIC", "VERSION", "PREAMBLE", "MAX_HEADER", "MAX_RAW", "CODE_CODECS", "COMPRESSORS", "_refuse_constant", "_finite",
        "_no_duplicates", "_parse_header", "_is_count", "_check_table", "_check_sections", "from_bytes",
    },
}  # fmt: skip


class _Strip(ast.NodeTransformer):
    """Drops docstrings and annotations."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        for argument in (*node.args.args, *node.args.kwonlyargs):
            argument.annotation = None
        return self._bare(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        # Annotations of a dataclass are its fields: they stay.
        node.body = [item if isinstance(item, ast.AnnAssign) else self.visit(item) for item in node.body]
        return self._bare(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return node
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    @staticmethod
    def _bare(node: Any) -> ast.AST:
        if node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
            node.body = node.body[1:] or [ast.Pass()]
        return node


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}


def decoder_source() -> str:
    """The bundled source: executed by itself it defines ``from_bytes(data) -> (header, records)``."""
    body: list[ast.stmt] = []
    for module, names in _READING.items():
        tree = ast.parse((_HERE / f"{module}.py").read_text(encoding="utf-8"))
        body += [node for node in tree.body if _names(node) & names]
    tree = _Strip().visit(ast.Module(body=body, type_ignores=[]))
    return _IMPORTS + ast.unparse(ast.fix_missing_locations(tree))


def decoder_bytes() -> int:
    """Bytes of that source as a self-extracting script: LZMA in base 85 and the line that runs it."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
    packed = lzma.compress(decoder_source().encode(), format=lzma.FORMAT_RAW, filters=filters)
    return len(base64.b85encode(packed)) + len(_RUNNER)
