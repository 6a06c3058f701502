"""What a demo's folder remembers, so that an interrupted demo continues and never mixes two runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from audit.contracts import InputError

#: everything that the demo writes into its folder; nothing else there is ever touched
PARTS = (
    "train", "model.art", "flat", "sliding", "ttt", "tampered", "verify-flat.json", "verify-sliding.json",
    "verify-ttt.json", "audit", "result.json", "report.html",
)  # fmt: skip


class State:
    """``demo.json``: the options of the run, the stages that ended, whether the whole did.

    Raises `InputError` for a folder that holds something else.
    """

    def __init__(self, out: Path, options: dict[str, Any], *, fresh: bool) -> None:
        self.out = out
        self.path = out / "demo.json"
        self.options = options
        self.stages: dict[str, dict[str, Any]] = {}
        self.continued = False
        if not out.exists():
            out.mkdir(parents=True)
        elif not out.is_dir():
            raise InputError(f"{out} is a file; name a folder with --out")
        elif not self.path.is_file() and any(out.iterdir()):
            raise InputError(f"{out} is not empty and holds no demo; name another folder with --out")
        before = self._read()
        if not fresh and before.get("options") == options and not before.get("finished", True):
            self.stages = before.get("stages", {})
            self.continued = bool(self.stages)
        else:
            data = before.get("stages", {}).get("data")
            same_data = all(before.get("options", {}).get(k) == options[k] for k in ("data", "val_documents"))
            if data and same_data and not fresh:
                self.stages = {"data": data}
            self._clear(keep_data="data" in self.stages)
        self.save(finished=False)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _clear(self, *, keep_data: bool) -> None:
        for name in (*PARTS, *(() if keep_data else ("data",))):
            remove(self.out / name)

    def save(self, *, finished: bool) -> None:
        """Written whole or not at all: a kill in between leaves the old file."""
        temporary = self.path.with_suffix(".tmp")
        text = json.dumps({"options": self.options, "stages": self.stages, "finished": finished}, indent=1)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.path)

    def done(self, name: str) -> bool:
        return name in self.stages

    def ended(self, name: str, **facts: Any) -> None:
        self.stages[name] = facts
        self.save(finished=False)


def remove(path: Path) -> None:
    """Deletes a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
