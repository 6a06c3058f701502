"""SARIF 2.1.0, for code scanning: one run, one result per finding, the value's path as a code flow.

Paths are relative to where the audit was started, and fingerprints hold the words of a line and not
its number, so that an alert survives edits elsewhere. A line of an unpacked source is no line of the submitted
file: such results point at the statement that holds the payload and name the other line in words. What could not
be shown is a result under a rule id of its own (``F8-undetermined``), which accuses nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from audit.baseline import fingerprint
from audit.excerpts import place_named
from audit.render.places import fingerprints, repository_path, safe, source_line

LEVEL = {"violation": "error", "warning": "warning", "note": "note"}
RANK = {"high": 90.0, "medium": 60.0, "low": 30.0}
SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"
#: suffix of the rule id under which an unshown obligation is reported
OPEN = "-undetermined"
#: "what line 3 runs could not be unpacked"
_LINE = re.compile(r"\bline (\d+)\b")


def render_sarif(document: dict[str, Any]) -> dict[str, Any]:
    """The SARIF log of a finished audit."""
    submissions = document["submissions"]
    results = _once(r for s in submissions for r in [*_findings(s), *_undecided(s)])
    ids = sorted({r["ruleId"] for r in results}, key=_order)
    names = {f["rule"]: f["name"] for s in submissions for f in s["findings"]}
    for result in results:
        result["ruleIndex"] = ids.index(result["ruleId"])
    run = {
        "tool": {
            "driver": {
                "name": "referee",
                "version": str(document.get("version", "0")),
                "semanticVersion": _semantic(str(document.get("version", "0"))),
                "rules": [_rule(rule, names) for rule in ids],
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


def _once(results: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each alert once: scripts of one folder share its papers, and what these show is found with each of them."""
    seen = set()
    out = []
    for result in results:
        place = result["locations"][0]["physicalLocation"]
        key = (
            result["ruleId"], result["message"]["text"], place["artifactLocation"]["uri"], place["region"]["startLine"],
            *result["partialFingerprints"].values(),
        )  # fmt: skip
        if key not in seen:
            seen.add(key)
            out.append(result)
    return out


def _order(rule: str) -> tuple[str, int, str]:
    match = re.match(r"([A-Z])(\d+)(.*)", rule)
    return (match[1], int(match[2]), match[3]) if match else (rule, 0, "")


def _semantic(version: str) -> str:
    parts = version.split("+")[0].split(".")
    return ".".join([*[p for p in parts if p.isdecimal()], "0", "0", "0"][:3])


def _rule(id: str, names: dict[str, str]) -> dict[str, Any]:
    """The entry that code scanning takes an alert's title from: what is wrong, not what must hold."""
    from audit.rules.base import rule_modules

    rule, open_ = id.removesuffix(OPEN), id.endswith(OPEN)
    module = rule_modules().get(rule)
    name = names.get(rule) or (module.RULE.name if module is not None else rule)
    words = "".join(w.title() for w in name.split("-")) + ("Undetermined" if open_ else "")
    out: dict[str, Any] = {"id": id, "name": words}
    if module is None:
        return out | {"shortDescription": {"text": f"Not shown: {name}" if open_ else name}}
    page = (module.__doc__ or "").strip()
    title, breach = module.RULE.title, module.RULE.breach or module.RULE.title
    return out | {
        "shortDescription": {"text": f"Not shown: {title}" if open_ else breach},
        "fullDescription": {"text": " ".join(page.split("\n\n")[0].split())},
        "help": {"text": page, "markdown": page},
        "defaultConfiguration": {"level": "warning" if open_ else LEVEL[module.RULE.severity]},
        "properties": {"tags": ["legality", module.RULE.authority, module.RULE.illegal]},
    }


def _place(s: dict[str, Any], path: str, line: int, end_line: int | None = None, own: str = "") -> dict[str, Any]:
    """Lines of the submitted file: those of the payload where the place lies in an unpacked source.

    ``own``: a path whose lines are the submitted file's in this finding.
    """
    region: dict[str, Any] = {"startLine": max(line, 1), "endLine": max(end_line or line, line, 1)}
    text = source_line(s, path, line)
    if (held := s.get("packed", {}).get(path)) is not None:
        inside = held["line"] and (path != own or path == held["path"])
        if inside:
            region = {"startLine": held["line"], "endLine": held["end_line"]}
        if inside or path == own:
            text = None
        path = held["path"] if path != own else path
    if text is not None:
        region["snippet"] = {"text": safe(text)}
    uri = quote(repository_path(s, path), safe="/-._~")
    return {"artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"}, "region": region}


def _unpacked(s: dict[str, Any], path: str, line: int, own: str = "") -> str:
    """In words, where in an unpacked source something lies; nothing for a file as it was submitted."""
    held = s.get("packed", {}).get(path)
    if held is None or not held["line"] or path == own:
        return ""
    inside = path in (held["path"], s.get("primary"))
    return f" (line {line} of {'the unpacked source' if inside else path + ', which this file unpacks'})"


def _of_the_wrapper(s: dict[str, Any], f: dict[str, Any]) -> bool:
    """Does the finding speak of the submitted script's own lines, not of what it runs."""
    held = s.get("packed", {}).get(f["path"])
    return f["rule"] in ("S1", "S3") or (f["rule"] == "B2" and held is not None and held["path"] != f["path"])


def _findings(s: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for f, print_ in zip(s["findings"], fingerprints(s), strict=True):
        yield _result(s, f, print_)


def _result(s: dict[str, Any], f: dict[str, Any], print_: str) -> dict[str, Any]:
    gate = f", decided by {f['gate']}" if f.get("gate") else ""
    quiet = "" if f["active"] == "yes" else f"; active under the submitted configuration: {f['active']}{gate}"
    own = f["path"] if _of_the_wrapper(s, f) else ""
    out: dict[str, Any] = {
        "ruleId": f["rule"],
        "level": LEVEL[f["severity"]],
        "kind": "fail",
        "rank": RANK[f["confidence"]],
        "message": {"text": safe(f"{f['message']}{_unpacked(s, f['path'], f['line'], own)}{quiet}")},
        "locations": [{"physicalLocation": _place(s, f["path"], f["line"], f.get("end_line"), own)}],
        "partialFingerprints": {"refereeFinding/v1": print_},
        "properties": {k: f.get(k) for k in ("authority", "confidence", "active", "gate", "basis")},
    }
    if f.get("trace"):
        steps = [
            {
                "location": {
                    "physicalLocation": _place(s, step["path"], step["line"], own=own),
                    "message": {"text": safe(step["message"] + _unpacked(s, step["path"], step["line"], own))},
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


def _undecided(s: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One result for every obligation that was not shown, so that no scan is green for want of an answer.

    What the papers lack (``record_ready``) is no matter of the code.
    """
    from audit.rules.base import rule_modules
    from audit.verdict import bears

    primary = s.get("primary")
    if not primary:
        return
    for o in s["obligations"]:
        if o["status"] != "undetermined" or any(_says_it(f, o) for f in s["findings"]):
            continue
        module = rule_modules().get(o["rule"])
        if module is not None and module.RULE.illegal == "NOT-READY":
            continue
        path, line = _named(s, o["reason"])
        holds_back = module is not None and bears(module.RULE, "precedent")
        words = re.sub(r"\d+", "", o["reason"])
        yield {
            "ruleId": o["rule"] + OPEN,
            "level": "warning" if holds_back else "note",
            "kind": "fail",
            "message": {"text": safe(f"{o['rule']} could not be shown: {o['reason']}")},
            "locations": [{"physicalLocation": _place(s, path, line)}],
            "partialFingerprints": {"refereeFinding/v1": fingerprint(o["rule"] + OPEN, path, words, "0")},
            "properties": {"status": "undetermined"},
        }


def _says_it(f: dict[str, Any], o: dict[str, Any]) -> bool:
    """Is a finding the result already: one in doubt that would count, or one with the obligation's own words."""
    if f["rule"] != o["rule"] or f["severity"] == "note" or f.get("suppressed"):
        return False
    in_doubt = f["severity"] == "violation" and f["active"] == "unknown"
    return in_doubt or f["message"].partition(": ")[2] in o["reason"] != ""


def _named(s: dict[str, Any], reason: str) -> tuple[str, int]:
    """The place that an obligation's reason names, else the beginning of the script."""
    primary = str(s["primary"])
    known = {primary, *s.get("packed", {}), *s.get("excerpts", {}), *(f["path"] for f in s.get("facts", []))}
    if (place := place_named(reason, known)) is not None:
        return place[0], max(place[1], 1)
    match = _LINE.search(reason)
    return primary, max(int(match[1]), 1) if match else 1
