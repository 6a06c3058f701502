"""SARIF 2.1.0, for code scanning: one run, one result per finding, the value's path as a code flow.

Paths are relative to where the audit was started, and fingerprints hold the words of a line and not
its number, so that an alert survives edits elsewhere. What could not be shown is a notification of
the run, since it is about the audit and has no place in the code.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from audit.render.places import fingerprints, repository_path, safe, source_line

LEVEL = {"violation": "error", "warning": "warning", "note": "note"}
RANK = {"high": 90.0, "medium": 60.0, "low": 30.0}
SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"


def render_sarif(document: dict[str, Any]) -> dict[str, Any]:
    """The SARIF log of a finished audit."""
    submissions = document["submissions"]
    ids = sorted({f["rule"] for s in submissions for f in s["findings"]}, key=lambda r: (r[0], int(r[1:])))
    names = {f["rule"]: f["name"] for s in submissions for f in s["findings"]}
    index = {rule: n for n, rule in enumerate(ids)}
    results = [
        _result(s, f, print_, index)
        for s in submissions
        for f, print_ in zip(s["findings"], fingerprints(s), strict=True)
    ]
    run = {
        "tool": {
            "driver": {
                "name": "referee",
                "version": str(document.get("version", "0")),
                "semanticVersion": _semantic(str(document.get("version", "0"))),
                "rules": [_rule(rule, names[rule]) for rule in ids],
            }
        },
        "automationDetails": {"id": f"referee/{document.get('ruleset', 'unknown')}"},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "where the audit was started"}}},
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {
                        "level": "warning" if s["verdict"] == "undetermined" else "note",
                        "message": {
                            "text": safe(f"{s.get('target', '')}: {s['verdict']}: {s.get('reason', '')}")
                        },
                    }
                    for s in submissions
                ],
            }
        ],
        "results": results,
        "properties": {"verdicts": {str(s.get("target")): s["verdict"] for s in submissions}},
    }
    return {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}


def _semantic(version: str) -> str:
    parts = version.split("+")[0].split(".")
    return ".".join([*[p for p in parts if p.isdigit()], "0", "0", "0"][:3])


def _rule(rule: str, name: str) -> dict[str, Any]:
    out: dict[str, Any] = {"id": rule, "name": "".join(w.title() for w in name.split("-"))}
    from audit.rules.base import rule_modules

    module = rule_modules().get(rule)
    if module is None:
        return out | {"shortDescription": {"text": name}}
    page = (module.__doc__ or "").strip()
    return out | {
        "shortDescription": {"text": module.RULE.title},
        "fullDescription": {"text": " ".join(page.split("\n\n")[0].split())},
        "help": {"text": page, "markdown": page},
        "defaultConfiguration": {"level": LEVEL[module.RULE.severity]},
        "properties": {"tags": ["legality", module.RULE.authority, module.RULE.illegal]},
    }


def _place(s: dict[str, Any], path: str, line: int, end_line: int | None = None) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": max(line, 1), "endLine": max(end_line or line, line, 1)}
    text = source_line(s, path, line)
    if text is not None:
        region["snippet"] = {"text": safe(text)}
    uri = quote(repository_path(s, path), safe="/-._~")
    return {"artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"}, "region": region}


def _result(s: dict[str, Any], f: dict[str, Any], print_: str, index: dict[str, int]) -> dict[str, Any]:
    unpacked = bool(s.get("peeled")) and f["path"] == s.get("primary")
    where = " (line of the unpacked source)" if unpacked else ""
    gate = f" Decided by {f['gate']}." if f.get("gate") else ""
    quiet = "" if f["active"] == "yes" else f" Active under the submitted configuration: {f['active']}.{gate}"
    out: dict[str, Any] = {
        "ruleId": f["rule"],
        "ruleIndex": index[f["rule"]],
        "level": LEVEL[f["severity"]],
        "kind": "fail",
        "rank": RANK[f["confidence"]],
        "message": {"text": safe(f"{f['message']}{where}{quiet}")},
        "locations": [{"physicalLocation": _place(s, f["path"], f["line"], f.get("end_line"))}],
        "partialFingerprints": {"refereeFinding/v1": print_},
        "properties": {k: f.get(k) for k in ("authority", "confidence", "active", "gate", "basis")},
    }
    if f.get("trace"):
        steps = [
            {
                "location": {
                    "physicalLocation": _place(s, step["path"], step["line"]),
                    "message": {"text": safe(step["message"])},
                },
                "executionOrder": n,
            }
            for n, step in enumerate(f["trace"], 1)
        ]
        out["codeFlows"] = [{"threadFlows": [{"locations": steps}]}]
    if f.get("suppressed"):
        kind = "external" if f["suppressed"] == "baseline" else "inSource"
        out["suppressions"] = [{"kind": kind, "justification": safe(f["suppressed"])}]
    return out
