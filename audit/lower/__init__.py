"""Text to intermediate representation: one call, whatever it takes to parse the text.

Conventions that both front ends keep (positions as ``ast`` counts them, columns in characters):

- a function or class starts at ``def``/``class``, not at its decorators; parentheses around an
  expression do not belong to it, except those of a tuple or a generator;
- an f-string holds its text pieces as Const and its expressions in order; of a format spec only the
  nested expressions are kept; a spec's text and a conversion (``!r``) are dropped;
- ``x[a, b]`` has a tuple as index; ``elif`` is an If alone in ``orelse``.
"""

from __future__ import annotations

import ast
import hashlib
import warnings

from audit import ir
from audit.lower.errors import Unparsable
from audit.lower.from_ast import lower_ast

__all__ = ["Unparsable", "lower"]


def lower(text: str, path: str) -> ir.Module:
    """Parses ``text`` and lowers it. Raises `Unparsable` with position and reason, nothing else."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = lower_ast(ast.parse(text), path, lines)
    except SyntaxError as error:
        raise Unparsable(error.lineno or 1, (error.offset or 1) - 1, error.msg) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unparsable(1, 0, str(error) or type(error).__name__) from None
    module.frontend, module.sha256, module.lines = "ast", digest, lines
    return module
