"""Compiled helpers: C and C++ beside a submission, or as text inside its Python.

``read_native(texts, modules)`` returns what each function of such code does with the token stream it is given:
which of its outputs depend on the very token they are output for, and whether it spreads a token's loss over
bytes. Reading is by tree-sitter and abstract interpretation; nothing is compiled or run.
"""

from audit.native.model import NativeFunction, Output
from audit.native.read import SUFFIXES, read_native

__all__ = ["SUFFIXES", "NativeFunction", "Output", "read_native"]
