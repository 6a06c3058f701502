"""The program's entry point: every wing's registered commands under one name."""

from __future__ import annotations

from audit.program import main

__all__ = ["main"]
