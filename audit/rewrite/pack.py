"""Form only: minified spacing and self-extracting wrappers."""

from __future__ import annotations

import ast
import base64
import bz2
import lzma
import random
import zlib

from audit.rewrite.base import NothingToRewrite, parse


class _Undocument(ast.NodeTransformer):
    def _strip(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        body = node.body  # type: ignore[attr-defined]
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            if isinstance(body[0].value.value, str):
                del body[0]
            if not body and not isinstance(node, ast.Module):
                body.append(ast.Pass())
        return node

    visit_Module = visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _strip


def minify(text: str, chance: random.Random) -> tuple[str, str]:
    """No comments, no docstrings, one space of indentation, simple statements joined by semicolons."""
    tree = _Undocument().visit(parse(text))
    try:
        lines = ast.unparse(ast.fix_missing_locations(tree)).split("\n")
    except RecursionError:
        raise NothingToRewrite("the script nests too deeply to be printed again") from None
    simple = (
        ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return, ast.Pass, ast.Break, ast.Continue,
        ast.Delete, ast.Import, ast.Assert, ast.Raise,
    )  # fmt: skip
    again = ast.parse("\n".join(lines))
    joinable = {
        n.lineno: n.end_lineno for n in ast.walk(again)
        if isinstance(n, simple) and n.lineno == n.end_lineno
    }  # fmt: skip
    multi = {
        line for n in ast.walk(again) if isinstance(n, (ast.Constant, ast.JoinedStr))
        for line in range(n.lineno + 1, (n.end_lineno or n.lineno) + 1)
    }  # fmt: skip
    tab = chance.choice(("\t", " ", "  "))
    out: list[str] = []
    last_simple = False
    for number, line in enumerate(lines, 1):
        if number in multi:
            out.append(line)
            last_simple = False
            continue
        if not line.strip():
            continue
        body = line.lstrip(" ")
        indent = tab * ((len(line) - len(body)) // 4)
        if (
            number in joinable
            and last_simple
            and out[-1].startswith(indent)
            and out[-1][len(indent)] not in " \t"
            and len(out[-1]) < 400
        ):
            out[-1] += ";" + body
        else:
            out.append(indent + body)
        last_simple = number in joinable
    return "\n".join(out) + "\n", f"minified to {len(out)} lines"


def pack(text: str, chance: random.Random) -> tuple[str, str]:
    """A script that unpacks and runs the script, in one of the shapes seen in submissions."""
    data = text.encode("utf-8", "surrogateescape")
    kind = chance.choice(("lzma+b85", "raw lzma+b85", "zlib+b64", "bz2+b64"))
    if kind == "lzma+b85":
        blob = base64.b85encode(lzma.compress(data)).decode()
        return (
            "import lzma as L,base64 as B\n"
            f'exec(L.decompress(B.b85decode("{blob}")))\n'
        ), f"packed with {kind}"  # fmt: skip
    if kind == "raw lzma+b85":
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
        blob = base64.b85encode(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)).decode()
        return (
            "import lzma as L,base64 as B\n"
            f'exec(L.decompress(B.b85decode("{blob}"),format=L.FORMAT_RAW,filters=[{{"id":L.FILTER_LZMA2}}]))\n'
        ), f"packed with {kind}"
    module, small = ("zlib", zlib.compress(data, 9)) if kind == "zlib+b64" else ("bz2", bz2.compress(data))
    rows = base64.b64encode(small).decode()
    lines = "\n".join(f'    "{rows[i : i + 96]}"' for i in range(0, len(rows), 96))
    return (
        f"import base64, {module}\n\nDATA = (\n{lines}\n)\n"
        f"code = {module}.decompress(base64.b64decode(DATA)).decode('utf-8')\n"
        "exec(compile(code, 'train_gpt.py', 'exec'))\n"
    ), f"packed with {kind}"
