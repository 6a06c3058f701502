"""What a rule is, and how rules are found.

A rule module (``audit/rules/f01_pre_eval_ttt.py``, …) holds, in this order: a docstring that is the
rule's documentation page (what, why, ruling with thread number and date, look-alikes, see also),
``RULE``, ``ILLEGAL`` and ``LEGAL`` examples, and ``check``. Adding a rule touches one file.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from audit.model import Authority, Finding, Obligation, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A snippet beside its rule. ``lines`` are the lines that must fire; empty for a legal look-alike.

    ``files`` may add helpers, logs or a README (path -> text) around the primary ``code``.
    """

    name: str
    code: str
    lines: tuple[int, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Identity and standing of one rule.

    ``illegal``: what a breach makes of the submission by the rulebook's table: INVALID and
    INELIGIBLE may become a violation, GREY, BLOCKED and DISPUTED a warning, NOT-READY goes to
    ``record_ready``. ``needs``: inputs without which the obligation is not applicable
    (``source``, ``log``, ``data``, ``run``). ``ruling``: the threads that it rests on, of those that the page
    names; none where the README alone or nobody says so. ``since``: the ruling's date, ISO; a ruleset dated
    earlier does not contain the rule.
    """

    id: str
    name: str
    title: str
    illegal: str
    authority: Authority
    severity: Severity
    ruling: str = ""
    needs: tuple[str, ...] = ("source",)
    since: str = "2026-03-18"
    #: what a breach is, in a few words: the title of an alert (``title`` says what must hold)
    breach: str = ""


#: ``check(context)`` yields any number of findings and at least one obligation for its rule.
Check = Callable[[Any], Iterator[Finding | Obligation]]


@cache
def rule_modules() -> dict[str, ModuleType]:
    """Rule id -> module, in the order of the rulebook (F, D, M, B, E, S; numbers ascending).

    A rule file that does not even import is one failed check, not the end of every audit: a
    stand-in takes its id from the file's name, and its ``check`` raises what the import raised.
    """
    import audit.rules as package

    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        try:
            module = importlib.import_module(f"{package.__name__}.{info.name}")
        except Exception as error:
            module = _broken(info.name, error)
        if isinstance(getattr(module, "RULE", None), Rule):
            found[module.RULE.id] = module
    order = "FDMBES"
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), int(item[0][1:]))))


def _broken(name: str, error: Exception) -> ModuleType:
    module = ModuleType(name, f"{name} could not be loaded: {error}")
    if match := re.match(r"([fdmbes])0*(\d+)_(\w+)$", name):
        module.RULE = Rule(  # type: ignore[attr-defined]
            id=match[1].upper() + match[2], name=match[3].replace("_", "-"), title=match[3].replace("_", " "),
            illegal="INVALID", authority="README", severity="violation", needs=(),
        )  # fmt: skip
        module.ILLEGAL, module.LEGAL = [], []  # type: ignore[attr-defined]

    def check(_ctx: Any) -> Iterator[Finding | Obligation]:
        raise ImportError(f"the rule's file could not be loaded: {error}") from error

    module.check = check  # type: ignore[attr-defined]
    return module
