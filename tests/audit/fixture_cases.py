"""Every fixture with its expectation, and the comparison that all fixture tests share."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from audit.context import Options
from audit.engine import audit_target
from audit.model import Submission

ROOT = Path(__file__).resolve().parents[2] / "fixtures"
SUBMISSIONS = ROOT / "submissions"


@cache
def expected(case: str) -> dict[str, Any]:
    return dict(json.loads((SUBMISSIONS / case / "expected.json").read_text(encoding="utf-8")))


def cases(base: str = "*") -> list[str]:
    """``base/case`` of every fixture, sorted."""
    return sorted(str(p.parent.relative_to(SUBMISSIONS)) for p in SUBMISSIONS.glob(f"{base}/*/expected.json"))


@cache
def audited(case: str) -> Submission:
    """The fixture through the whole pipeline, as ``referee audit FOLDER`` runs it."""
    results = audit_target(str(SUBMISSIONS / case), Options(env=expected(case)["env"]))
    (result,) = [r for r in results if r.primary == "train_gpt.py"]
    return result


#: fixtures that the audit still gets wrong, with what is missing; each must really fail
GAPS: dict[str, str] = {}


def mismatches(case: str) -> list[str]:
    """What the audit says otherwise than the fixture expects; empty if they agree."""
    result, want = audited(case), expected(case)
    wrong = []
    if result.verdict != want["verdict"]:
        wrong.append(f"verdict {result.verdict}, expected {want['verdict']}: {result.reason}")
    for rule in want["rules"]:
        wrong += _rule(result, rule)
    allowed = {r["rule"] for r in want["rules"]} | set(want["also"])
    for f in result.findings:
        if f.rule not in allowed and f.severity != "note":
            wrong.append(f"unexpected {f.severity} {f.rule} at {f.path}:{f.line}: {f.message}")
    for name in ("ttt", "cache"):
        if getattr(result, name) != want[name]:
            wrong.append(f"{name} {getattr(result, name)}, expected {want[name]}")
    return wrong


def _rule(result: Submission, want: dict[str, Any]) -> list[str]:
    found = [f for f in result.findings if f.rule == want["rule"]]
    if not found:
        return [f"{want['rule']} did not fire"]
    like = [f for f in found if f.severity == want["severity"] and f.active == want["active"]]
    if not like:
        said = [(f.severity, f.active) for f in found]
        return [f"{want['rule']} says {said}, expected {want['severity']}, active {want['active']}"]
    places = {(path, line) for path, lines in want["lines"].items() for line in lines}
    if places and not any(
        (f.path, n) in places for f in like for n in range(f.line, max(f.end_line, f.line) + 1)
    ):
        return [
            f"{want['rule']} points at {[(f.path, f.line) for f in like]}, expected one of {sorted(places)}"
        ]
    return []


@cache
def builder() -> Any:
    """``fixtures/build.py`` as a module (it is a script and no package)."""
    spec = importlib.util.spec_from_file_location("fixture_build", ROOT / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fixture_build"] = module
    spec.loader.exec_module(module)
    return module
