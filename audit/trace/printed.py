"""Could the program have printed a line? Read off its format strings, whatever is filled into them.

The stated score of some submissions stands in logs of another program than the submitted one. What that program did is
not to be seen, so nothing is shown of the score. Only where no format string of the submission can give the line's
beginning is that said: a text that is wholly filled in (``f"{tag} val_bpb:{x}"``) could be anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from audit import ir

_FIGURE = re.compile(r"\b(?:val_loss|val loss|loss|val_bpb|val bpb|bpb)\b|_bpb\b", re.I)
_HOLE = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[sdfgeirx]|\{[^{}]*\}")
#: letters of a text that is no accident in a label
LEAST = 5


def could_be_printed(label: str, modules: Iterable[ir.Module]) -> bool:
    """Could some format string of the program have given ``label``, the text of a log line before its figure?"""
    label = label.strip()
    for module in modules:
        for pieces in _formats(module):
            begun = _before_the_figure(pieces)
            if begun is None:
                whole = "".join(p or "" for p in pieces).strip()
                if sum(map(str.isalpha, whole)) >= LEAST and whole in label:
                    return True  # printed in several parts
                continue
            letters = sum(c.isalpha() for p in begun if p for c in p)
            if not letters:
                if None in begun:
                    return True
                continue
            if _versions(label, " ".join(p or "" for p in begun)):
                return True
            pattern = "".join(".*?" if p is None else re.escape(p) for p in begun).strip()
            if re.search(pattern + r"\W*$", label):
                return True
    return False


def _versions(label: str, text: str) -> bool:
    """Two labels of which one word differs (``final_ttt_s0``, ``final_ttt_T0.98``): of two versions of one program."""
    a, b = re.findall("[A-Za-z]+", label), re.findall("[A-Za-z]+", text)
    return len(a) == len(b) > 1 and sum(x != y for x, y in zip(a, b, strict=True)) <= 1


def _formats(module: ir.Module) -> Iterator[list[str | None]]:
    """The texts of a module in pieces; None stands for what is filled in."""
    for node in ir.walk(module.body):
        if isinstance(node, ir.FString):
            yield ir.pieces(node)
        elif isinstance(node, ir.Const) and isinstance(node.value, str) and len(node.value) < 400:
            pieces: list[str | None] = []
            at = 0
            for hole in _HOLE.finditer(node.value):
                pieces += [node.value[at : hole.start()], None]
                at = hole.end()
            yield [*pieces, node.value[at:]]


def _before_the_figure(pieces: list[str | None]) -> list[str | None] | None:
    """The pieces up to the name of the figure; None where the text has no such name."""
    found: list[str | None] = []
    for piece in pieces:
        if piece is not None and (name := _FIGURE.search(piece)) is not None:
            return [*found, piece[: name.start()].rstrip(" :=([{\"'")]
        found.append(piece)
    return None


__all__ = ["could_be_printed"]
