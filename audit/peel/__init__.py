"""Undoes self-extracting wrappers without executing anything.

`peel` follows a wrapper's payload through whitelisted pure decoders, with bounded output, depth and
work; positions of everything later refer to the unpacked text.
"""

from __future__ import annotations

from audit.peel.peeler import EMBEDDED, Peeled, peel

__all__ = ["EMBEDDED", "Peeled", "peel"]
