"""The findings of a sweep's rows as data in its page: each row's list is built when somebody opens it.

Three thousand rows have seven thousand findings; written out, they would be most of the page and none of it is
looked at. Texts that come again and again are held once.
"""

from __future__ import annotations

import json
from typing import Any

from audit.render.places import safe

#: letters of a message; the result itself has it whole
LONGEST = 400


def counted(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The findings that an overview shows: no notes, nothing suppressed; the gravest first."""
    found = [f for f in row.get("findings", ()) if f["severity"] != "note" and not f.get("suppressed")]
    return sorted(found, key=lambda f: f["severity"] != "violation")


class Data:
    """Rows in order; `add` gives a row's number in the data, -1 for one without findings."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}
        self._rows: list[list[list[Any]]] = []

    def add(self, row: dict[str, Any]) -> int:
        found = counted(row)
        if not found:
            return -1
        self._rows.append([
            [
                f"{f['rule']} {f.get('name', '')}".strip(), int(f["severity"] != "violation"),
                self._held(f.get("path") or ""), f.get("line") or 0, self._held(str(f["message"])[:LONGEST]),
                self._held(_standing(f)),
            ]
            for f in found
        ])  # fmt: skip
        return len(self._rows) - 1

    def _held(self, text: str) -> int:
        return self._texts.setdefault(safe(text), len(self._texts))

    def script(self) -> str:
        """The element that holds the data. No ``<`` is left in it, so that no text can end it."""
        data = json.dumps({"texts": list(self._texts), "rows": self._rows}, ensure_ascii=False, separators=(",", ":"))
        return f"<script type='application/json' id='data'>{data.replace('<', chr(92) + 'u003c')}</script>"


def _standing(f: dict[str, Any]) -> str:
    gate = f" by {f['gate']}" if f.get("gate") else ""
    basis = "" if f.get("basis", "source") == "source" else f", from the {f['basis']}"
    return f"{f.get('authority', '')}, {f.get('confidence', '')} confidence, active: {f.get('active', '')}{gate}{basis}"
