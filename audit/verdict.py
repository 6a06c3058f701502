"""Turns what the rules said into one verdict, by the policy and the ruleset's date.

The steps are pure functions over findings and obligations, so that the same saved result can be
judged again. Only what the rulebook calls INVALID or INELIGIBLE can be a violation; disputed and
unruled matters are warnings unless the policy is strict; what the submitted configuration cannot
reach is a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date

from audit.context import Policy
from audit.contracts import FIRST_RULESET, Exit, InputError
from audit.model import Finding, Obligation, Severity, Submission, Verdict
from audit.rules.base import Rule
from audit.wording import counted

RANK: dict[Severity, int] = {"note": 0, "warning": 1, "violation": 2}
_BREAKING = ("INVALID", "INELIGIBLE")
_SETTLED = ("README", "MAINT", "MERGED", "COMM")
_ABSENT = {
    "log": "no log among the submitted files",
    "data": "no data shards were given",
    "run": "no run was watched",
    "source": "no readable source",
}


def in_force(rules: Iterable[Rule], ruleset: str) -> list[Rule]:
    """The rules that a ruleset of that date (ISO) contains; InputError for a date that is none, or before all rules."""
    try:
        date.fromisoformat(ruleset)
    except ValueError:
        raise InputError(f"--ruleset {ruleset!r} is not a date; write it as YYYY-MM-DD") from None
    if ruleset < FIRST_RULESET:
        raise InputError(f"--ruleset {ruleset} is before the first rule; the earliest ruleset is {FIRST_RULESET}")
    return [rule for rule in rules if rule.since <= ruleset]


def ceiling(rule: Rule, finding: Finding, policy: Policy) -> Severity:
    """The worst severity that a finding of this rule may have under the policy."""
    if finding.active == "no":
        return "note"
    if finding.confidence == "low" or rule.illegal == "NOT-READY":
        return "warning"
    if policy == "strict":
        return "violation"
    if rule.illegal in _BREAKING and finding.authority in _SETTLED:
        return "violation"
    return "warning"


def weigh(rule: Rule, finding: Finding, policy: Policy) -> Finding:
    """The finding with its severity held under the ceiling."""
    limit = ceiling(rule, finding, policy)
    return replace(finding, severity=limit) if RANK[finding.severity] > RANK[limit] else finding


def missing_input(rule: Rule, available: frozenset[str]) -> str | None:
    """Why the rule cannot be applied at all, or None. One of several needs suffices."""
    if not rule.needs or any(need in available for need in rule.needs):
        return None
    return "; ".join(_ABSENT.get(need, f"no {need}") for need in rule.needs)


def counts(finding: Finding) -> bool:
    """Does the finding bear on the verdict as a violation."""
    return finding.severity == "violation" and finding.suppressed is None


def settle(rule: Rule, findings: Sequence[Finding], stated: Sequence[Obligation]) -> Obligation:
    """One obligation per rule: what the rule stated, corrected by the findings that count.

    The worst stated status wins (violated, undetermined, holds, not-applicable). A status
    "violated" needs a finding that counts: what was weighed down to a warning or a note, or was
    suppressed, leaves a plain account of that instead.
    """
    active = [f for f in findings if counts(f)]
    if certain := [f for f in active if f.active == "yes"]:
        first = certain[0]
        return Obligation(
            rule=rule.id, status="violated", reason=f"{first.path}:{first.line}: {first.message}"
        )
    if active:
        first = active[0]
        gate = f" ({first.gate})" if first.gate else ""
        return Obligation(
            rule=rule.id,
            status="undetermined",
            reason=f"{first.path}:{first.line}: whether the submitted configuration reaches it is unknown{gate}",
        )
    order = ("violated", "undetermined", "holds", "not-applicable")
    worst = min(stated, key=lambda o: order.index(o.status), default=None)
    if worst is None:
        if findings:
            return Obligation(rule=rule.id, status="holds", reason=_weaker(findings))
        return Obligation(rule=rule.id, status="undetermined", reason="the check stated nothing")
    if worst.status == "violated":
        return Obligation(rule=rule.id, status="holds", reason=_weaker(findings) or worst.reason)
    return worst


def _weaker(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    worst = max(findings, key=lambda f: RANK[f.severity])
    if worst.suppressed is not None:
        return f"breach at {worst.path}:{worst.line} suppressed: {worst.suppressed}"
    if worst.active == "no":
        gate = f" ({worst.gate})" if worst.gate else ""
        return f"only in code that the submitted configuration does not reach{gate}"
    return f"{worst.severity} at {worst.path}:{worst.line}, which does not count under this policy"


def decide(
    rules: Sequence[Rule],
    findings: Sequence[Finding],
    obligations: Sequence[Obligation],
    available: frozenset[str],
    policy: Policy = "precedent",
) -> tuple[Verdict, str]:
    """The verdict and one sentence for it."""
    by_id = {rule.id: rule for rule in rules}
    breaches = [f for f in findings if counts(f) and f.active == "yes"]
    if breaches:
        rules_hit = list(dict.fromkeys(f.rule for f in breaches))
        first = breaches[0]
        more = f", and {len(breaches) - 1} more ({', '.join(rules_hit)})" if len(breaches) > 1 else ""
        return "violation", f"{first.rule} {first.name} at {first.path}:{first.line}{more}"
    open_ = [o for o in obligations if o.status == "undetermined" and bears(by_id.get(o.rule), policy)]
    if open_:
        more = f" (and {len(open_) - 1} more)" if len(open_) > 1 else ""
        return (
            "undetermined",
            f"undetermined, because {open_[0].rule} could not be shown: {open_[0].reason}{more}",
        )
    shown = sum(o.status == "holds" for o in obligations)
    absent = sum(o.status == "not-applicable" for o in obligations)
    scope = " and ".join(n for n in ("source", "log", "data", "run") if n in available)
    quiet = sum(f.suppressed is not None for f in findings)
    hushed = f"; {quiet} suppressed finding{'s' if quiet > 1 else ''} not counted" if quiet else ""
    return "clean", f"clean by {scope}: {counted(shown, 'obligation')} shown, {absent} not applicable{hushed}"


def bears(rule: Rule | None, policy: Policy) -> bool:
    """Can the rule's unshown obligation hold the verdict back: what cannot accuse cannot either."""
    if rule is None or rule.id.startswith("S"):
        return True
    if rule.illegal == "NOT-READY":
        return False
    if policy == "strict":
        return True
    return rule.illegal in _BREAKING and rule.authority in _SETTLED


def exit_code(submissions: Iterable[Submission]) -> Exit:
    """Violation if any, else undetermined if any, else ok."""
    verdicts = {s.verdict for s in submissions}
    if "violation" in verdicts:
        return Exit.VIOLATION
    return Exit.UNDETERMINED if "undetermined" in verdicts else Exit.OK
