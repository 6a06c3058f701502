"""The parts of SARIF 2.1.0 that this program writes, as a JSON schema of its own.

Closed at every level: a property that the standard does not know, or that is not meant to be
written, fails. Names, types and enumerations follow the OASIS standard, section 3.
"""

from typing import Any


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": required.split(), "additionalProperties": False,
    }  # fmt: skip


def _list(items: Any, least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least}


TEXT = {"type": "string", "minLength": 1}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
MESSAGE = _object("text", text=TEXT, markdown=TEXT)
BAG = {"type": "object"}
REGION = _object(
    "startLine", startLine={"type": "integer", "minimum": 1}, endLine={"type": "integer", "minimum": 1},
    snippet=_object("text", text={"type": "string"}),
)  # fmt: skip
PHYSICAL = _object(
    "artifactLocation region",
    artifactLocation=_object(
        "uri", uri={"type": "string", "pattern": r"^(?![/\\])(?!\w+:)(?!.*\.\./)[^ ]+$"},
        uriBaseId={"const": "%SRCROOT%"},
    ),
    region=REGION,
)  # fmt: skip
LOCATION = _object("physicalLocation", physicalLocation=PHYSICAL, message=MESSAGE)
RULE = _object(
    "id shortDescription", id=TEXT, name=TEXT, shortDescription=MESSAGE, fullDescription=MESSAGE, help=MESSAGE,
    defaultConfiguration=_object("level", level=LEVEL), properties=BAG,
)  # fmt: skip
RESULT = _object(
    "ruleId ruleIndex level message locations partialFingerprints",
    ruleId=TEXT, ruleIndex={"type": "integer", "minimum": 0}, level=LEVEL,
    kind={"enum": ["notApplicable", "pass", "fail", "review", "open", "informational"]},
    rank={"type": "number", "minimum": 0, "maximum": 100}, message=MESSAGE, locations=_list(LOCATION, 1),
    partialFingerprints={"type": "object", "additionalProperties": TEXT, "minProperties": 1},
    codeFlows=_list(_object("threadFlows", threadFlows=_list(_object("locations", locations=_list(_object(
        "location", location=LOCATION, executionOrder={"type": "integer", "minimum": 0}), 1)), 1)), 1),
    suppressions=_list(_object("kind", kind={"enum": ["inSource", "external"]}, justification=TEXT), 1),
    properties=BAG,
)  # fmt: skip
SARIF = _object(
    "version runs",
    **{"$schema": TEXT},
    version={"const": "2.1.0"},
    runs=_list(
        _object(
            "tool results",
            tool=_object("driver", driver=_object(
                "name", name=TEXT, version=TEXT, semanticVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
                rules=_list(RULE))),
            automationDetails=_object("id", id=TEXT),
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            originalUriBaseIds={"type": "object"},
            invocations=_list(_object(
                "executionSuccessful", executionSuccessful={"type": "boolean"},
                toolExecutionNotifications=_list(_object("message", level=LEVEL, message=MESSAGE)))),
            results=_list(RESULT),
            properties=BAG,
        ),
        1,
    ),
)  # fmt: skip
