"""The rulebook: the table of rules in force, every rule's page, and one rule explained with examples.

All of it is read off the rule files; the documentation page is this output, kept by a test.
"""

from __future__ import annotations

import difflib
import json
import re
from types import ModuleType
from typing import Any

from audit.contracts import InputError
from audit.rules.base import Example, rule_modules
from audit.verdict import in_force


def rulebook(ruleset: str, format: str = "text", *, full: bool = False) -> str:
    """The rules that a ruleset of that date contains, as text, Markdown or JSON."""
    modules = rule_modules()
    rules = in_force((m.RULE for m in modules.values()), ruleset)
    if format == "json":
        rows = [
            {
                "id": r.id, "name": r.name, "title": r.title, "illegal": r.illegal, "authority": r.authority,
                "severity": r.severity, "needs": list(r.needs), "since": r.since,
            }
            for r in rules
        ]  # fmt: skip
        return json.dumps({"ruleset": ruleset, "rules": rows}, indent=2)
    if format == "text":
        lines = [f"{len(rules)} rules, ruleset {ruleset}", ""]
        for r in rules:
            lines.append(f"{r.id:<4}{r.name:<26}{r.illegal:<12}{r.authority:<10}{r.title}")
        return "\n".join(
            [*lines, "", "referee explain RULE gives a rule's page, with an illegal and a legal example"]
        )
    head = [
        "# Rules",
        "",
        f"Ruleset {ruleset}, written by `referee rules --format markdown --full`. What a breach makes of a "
        "submission is in the third column; only INVALID and INELIGIBLE can become a violation, and only with "
        "the authority README, MAINT, MERGED or COMM unless the policy is `strict`.",
        "",
        "| rule | name | a breach is | authority | needs | since | what must hold |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rules:
        link = f"[{r.id}](#{r.id.lower()}-{r.name})" if full else r.id
        needs = " or ".join(r.needs) or "-"
        head.append(f"| {link} | {r.name} | {r.illegal} | {r.authority} | {needs} | {r.since} | {r.title} |")
    if not full:
        return "\n".join(head)
    pages = [_page(modules[r.id]) for r in rules]
    return "\n\n".join(["\n".join(head), *pages])


def find(name: str) -> ModuleType:
    """The module of a rule named by id or name, in any case; InputError with what there is."""
    wanted = name.strip().lower()
    for module in rule_modules().values():
        if wanted in (module.RULE.id.lower(), module.RULE.name.lower()):
            return module
    close = difflib.get_close_matches(wanted, [m.RULE.name for m in rule_modules().values()], n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    raise InputError(f"no rule {name!r}{hint}; known: {', '.join(rule_modules())}")


def explain(name: str) -> str:
    """One rule's page as text: what, why, ruling, and an illegal and a legal example."""
    module = find(name)
    rule = module.RULE
    lines = [
        f"{rule.id} {rule.name}: {rule.title}",
        f"a breach is {rule.illegal}; authority {rule.authority}; in force since {rule.since}; "
        f"needs {' or '.join(rule.needs) or 'nothing'}",
        "",
        _body(module),
    ]
    for word, examples in (("Illegal", module.ILLEGAL), ("Legal look-alike", module.LEGAL)):
        for example in examples[:1]:
            lines += ["", f"{word}: {example.name}", "", *_snippet(example)]
    before, after = _pair(module)
    if before and after:
        lines += ["", "From the illegal to the legal one:", "", *_difference(before, after)]
    return "\n".join(lines)


def _body(module: ModuleType) -> str:
    """The docstring without its first line, which repeats id and title."""
    page = (module.__doc__ or "").strip().partition("\n\n")[2]
    return re.sub(r"\*\*(\w[^*]*)\.\*\*", r"\1.", page)


def _snippet(example: Example, limit: int = 60) -> list[str]:
    lines = example.code.rstrip("\n").split("\n")
    first, last = _window(lines, example.lines, limit)
    out = [f"    ... {first} lines before"] if first else []
    for n in range(first + 1, last + 1):
        mark = ">" if n in example.lines else " "
        out.append(f"  {mark} {n:>3} | {lines[n - 1][:120]}")
    if last < len(lines):
        out.append(f"    ... {len(lines) - last} lines after")
    for path, body in example.files:
        out.append(f"    beside it: {path} ({body.count(chr(10))} lines)")
    return out


def _window(lines: list[str], marked: tuple[int, ...], limit: int) -> tuple[int, int]:
    """At most ``limit`` lines around the marked ones; the end of the text where none is marked."""
    if len(lines) <= limit:
        return 0, len(lines)
    middle = marked[0] if marked else len(lines)
    first = max(0, min(middle - limit // 2, len(lines) - limit))
    return first, first + limit


def _pair(module: ModuleType) -> tuple[Example | None, Example | None]:
    """The illegal and the legal example that are most alike, if any two are."""
    best: tuple[float, Any, Any] = (0.5, None, None)
    for bad in module.ILLEGAL:
        for good in module.LEGAL:
            if max(len(bad.code), len(good.code)) > 20_000:
                continue
            alike = difflib.SequenceMatcher(None, bad.code.split("\n"), good.code.split("\n")).ratio()
            if best[0] < alike < 1:
                best = (alike, bad, good)
    return best[1], best[2]


def _difference(before: Example, after: Example) -> list[str]:
    a, b = before.code.rstrip("\n").split("\n"), after.code.rstrip("\n").split("\n")
    return [f"    {line[:120]}" for line in list(difflib.unified_diff(a, b, lineterm="", n=2))[2:60]]


def _page(module: ModuleType) -> str:
    rule = module.RULE
    page = (module.__doc__ or "").strip().split("\n\n", 1)
    lines = [
        f"## {rule.id} {rule.name}",
        "",
        f"*{rule.title}.* A breach is {rule.illegal}; authority {rule.authority}; since {rule.since}.",
        "",
        page[1].strip() if len(page) > 1 else "",
    ]
    for word, examples in (("Illegal", module.ILLEGAL), ("Legal", module.LEGAL)):
        if not examples:
            continue
        example = examples[0]
        text = example.code.rstrip("\n").split("\n")
        first, last = _window(text, example.lines, 40)
        body = [line[:140] for line in text[first:last]]
        head = [f"# ... {first} lines before"] if first else []
        tail = [f"# ... {len(text) - last} lines after"] if last < len(text) else []
        marked = f" (fires at line {', '.join(map(str, example.lines))})" if example.lines else ""
        lines += ["", f"{word}: {example.name}{marked}", "", "```python", *head, *body, *tail, "```"]
    return "\n".join(lines)
