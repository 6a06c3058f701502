"""Small matters of English in what an audit says."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 table read``, ``2 table reads``, ``1,048,576 tokens``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
