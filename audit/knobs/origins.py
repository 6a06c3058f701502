"""Where the settings of a finding's gate come from: who set each, and what the code would take."""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.knobs.model import Knobs

_SETTING = re.compile(r"(?:^|, )(-{0,2}[A-Za-z_][\w-]*)=((?:(?!, -{0,2}[A-Za-z_][\w-]*=).)*)")


def origins(gate: str, knobs: Knobs, folder: str) -> Iterator[str]:
    """``ADAPT=1 from README.md:54; default 0, train_gpt.py:102`` for every setting of a gate.

    ``folder``: the submission's own, which is left out of paths.
    """
    for name, value in _SETTING.findall(gate):
        declared, given = knobs.declared.get(name), knobs.values.get(name)
        read = _place(declared.path, declared.line, folder) if declared is not None else ""
        if given is not None and _same(given.value, value):
            who = {"env": "--env", "wrapper": "the wrapper"}.get(given.source) or _place(given.path, given.line, folder)
            code = f"; default {declared.default}, {read}" if declared is not None and declared.default is not None else ""
            yield f"{name}={value} from {who}{code or (f'; read at {read}' if read else '')}"
        elif declared is not None:
            default = declared.default is not None and _same(declared.default, value)
            yield f"{name}={value} by default, {read}" if default else f"{name}={value}, read at {read}"


def _place(path: str, line: int, folder: str) -> str:
    near = path.removeprefix(folder + "/") if folder else path
    return f"{near}:{line}" if line else near


def _same(one: str, other: str) -> bool:
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False
