"""The hash chain of a scorecard: canonical JSON lines, each carrying the digest of all before it.

A line is ``{"hash": h, "prev": p, …}`` serialised canonically (sorted keys, no spaces, ASCII), where ``p``
is the previous line's ``h`` and ``h`` the SHA-256 of the line without its ``hash`` entry. The verifier
demands the exact bytes, so no byte of the file is outside the chain.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

SCHEMA = "referee.scorecard/1"
GENESIS = "0" * 64
EVENTS = "scorecard.jsonl"
SCORES = "nll.npy"


def canonical(value: Any) -> bytes:
    """The one serialisation of a JSON value. NaN and infinities raise ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def seal(body: dict[str, Any], prev: str, seq: int) -> tuple[bytes, str]:
    """The event's line (with its newline) and its hash."""
    linked = {**body, "prev": prev, "seq": seq}
    digest = hashlib.sha256(canonical(linked)).hexdigest()
    return canonical({**linked, "hash": digest}) + b"\n", digest


def unseal(line: bytes, prev: str, seq: int) -> dict[str, Any]:
    """Parses one line and checks its place in the chain. Raises ValueError with what is wrong."""
    try:
        event = json.loads(line)
    except ValueError:
        raise ValueError("no JSON") from None
    if not isinstance(event, dict) or canonical(event) + b"\n" != line:
        raise ValueError("not in canonical form")
    stated = event.pop("hash", None)
    if hashlib.sha256(canonical(event)).hexdigest() != stated:
        raise ValueError("its hash does not match its content")
    if event.get("prev") != prev:
        raise ValueError("it does not follow the event before it")
    if event.get("seq") != seq:
        raise ValueError("its sequence number is wrong")
    event["hash"] = stated
    return event
