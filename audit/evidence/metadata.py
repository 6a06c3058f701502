"""Reads ``submission.json`` in its real shapes, also where it is no valid JSON.

The file is scanned token by token with the path of keys kept on a stack; nothing is required of it,
so a missing comma or a second document at the end costs a fact ``json_error`` and no more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from audit.evidence.words import measure, of_others, quantity, seed_of
from audit.model import Fact

_TOKEN = re.compile(
    r'"(?P<string>(?:[^"\\\n]|\\.)*)"(?P<key>\s*:)?|(?P<open>[{\[])|(?P<close>[}\]])|(?P<comma>,)'
    r"|(?P<number>[-+]?\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<word>true|false|null|NaN|None|True|False)"
)
_IDENTITY = ("author", "github_id", "name", "date", "track", "blurb")
#: what people call the fields that a package must have; the contest itself asks for "your name, GitHub ID, val_bpb"
_ALIASES = {
    "author": re.compile(r"(?:authors?|submitter|submitted_by|team|contributors?)(?:_?names?)?|github(?:_?(?:id|user|username|handle))?", re.I),
    "name": re.compile(r"(?:(?:submission|record|run|model|entry)_)?(?:name|title|id)|submission|record|title", re.I),
    "val_bpb": re.compile(r"(?:(?:final|mean|avg|best|exact)_)?(?:(?:val_)?(?:bpb|bpp)|score)(?:_(?:mean|avg|exact|final))?", re.I),
}
_SETTING = re.compile(
    r"^(num_layers|n_layers|layers|model_dim|num_heads|num_kv_heads|mlp_mult|vocab_size|eval_stride|ttt_epochs|seq_len)$"
)
#: how many tokens the stated score is over
_SCORED = frozenset({"eval_tokens", "val_tokens", "validation_tokens", "scored_tokens"})
MAX_LEAVES = 4000


def leaves(text: str) -> Iterator[tuple[tuple[str, ...], str, str, int]]:
    """(keys from the root, kind "string" | "number" | "word", text, line) of every leaf, in order.

    An element of a list has ``#i`` as its key. Never raises; unknown characters are passed over.
    """
    stack: list[tuple[str, str, int]] = []  # (bracket, key of the container, elements seen)
    key = ""
    line, at = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        if match["open"]:
            stack.append((match["open"], key, 0))
            key = "#0" if match["open"] == "[" else ""
        elif match["close"]:
            if stack:
                stack.pop()
            key = ""
        elif match["comma"]:
            if stack and stack[-1][0] == "[":
                bracket, name, seen = stack.pop()
                stack.append((bracket, name, seen + 1))
                key = f"#{seen + 1}"
        elif match["key"] is not None:
            key = match["string"]
        else:
            kind = next(k for k in ("string", "number", "word") if match[k] is not None)
            yield (*(k for _, k, _ in stack[1:]), key), kind, match[kind], line


def read_metadata(path: str, data: bytes) -> Iterator[Fact]:
    """Facts of one ``submission.json``. Scope is ``""`` or ``seed:N`` where a figure is one seed's."""
    text = data.decode("utf-8-sig", "replace")
    if error := _invalid(text):
        yield Fact(name="json_error", value=error, path=path, line=1, raw=error)
    found = []
    for count, leaf in enumerate(leaves(text)):
        if count >= MAX_LEAVES:
            break
        found.append(leaf)
    listed = {
        keys[:-1]: int(raw) for keys, kind, raw, _ in found
        if kind == "number" and keys[-1].lower() == "seed" and len(keys) > 1 and raw.isdecimal()
    }  # fmt: skip
    order = [
        int(raw) for keys, kind, raw, _ in found if len(keys) == 2 and keys[0] == "seeds" and raw.isdecimal()
    ]
    named = set()
    for keys, kind, raw, line in found:
        for fact in _leaf(path, keys, kind, raw, line, listed, order):
            named.add(fact.name.removesuffix("_mean"))
            yield fact
    for keys, kind, raw, line in found:
        yield from (f for f in _field(path, keys, kind, raw, line) if f.name.removeprefix("field.") not in named)


def _field(path: str, keys: tuple[str, ...], kind: str, raw: str, line: int) -> Iterator[Fact]:
    """``field.author`` …: a field of the package that has another name or no proper value: what stands there, be it ``null``."""
    if len(keys) > 1 and not (keys[1].startswith("#") or keys[1].lower() in {"name", "github", "github_id"}):
        return
    for name, pattern in _ALIASES.items():
        if pattern.fullmatch(keys[0]) and (len(keys) == 1 or name == "author"):
            shown = raw[:40] if kind != "string" else f'"{raw[:40]}"'
            yield Fact(name=f"field.{name}", value=raw[:300], path=path, line=line, raw=shown, label=keys[0])


def _invalid(text: str) -> str:
    try:
        loaded: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error)[:120]
    return "" if isinstance(loaded, dict) else f"a {type(loaded).__name__} and not an object"


def _leaf(
    path: str,
    keys: tuple[str, ...],
    kind: str,
    raw: str,
    line: int,
    listed: dict[tuple[str, ...], int],
    order: list[int],
) -> Iterator[Fact]:
    last = keys[-1]
    label = ".".join(keys)

    def fact(name: str, found: Any, text: str = raw, scope: str = "") -> Fact:
        return Fact(name=name, value=found, path=path, line=line, raw=text, scope=scope, label=label)

    if len(keys) == 1 and last.lower() in _IDENTITY and kind == "string":
        yield fact(last.lower(), raw[:300])
        return
    if kind == "word":
        if raw.lower() in {"true", "false"} and keys[0] in {"compliance", "legality", "rules"}:
            yield fact(f"claim.{last.lower()}", raw.lower() == "true")
        return
    if any(of_others(k) for k in keys[:-1]):
        return
    seed = next((s for k in keys[:-1] if not k.startswith("#") and (s := seed_of(k)) is not None), None)
    named = last
    if seed is None:
        seed = next((listed[keys[:i]] for i in range(len(keys) - 1, 0, -1) if keys[:i] in listed), None)
    if len(keys) > 1 and seed is None and (own := seed_of(last)) is not None and not last.startswith("#"):
        seed, named = own, keys[-2]  # {"val_bpb_seeds": {"1337": 1.02}}
        if quantity(named) is None and re.search(r"seed", named, re.I):
            named = "val_bpb"
    elif last.startswith("#") and len(keys) > 1:
        named = keys[-2]
        if named.lower() == "seeds" and raw.isdecimal():
            yield fact("seed", int(raw), scope=f"seed:{raw}")
            return
        place = int(last[1:])
        if quantity(named) and len(order) > place:
            seed = order[place]
        elif quantity(named) is None:
            return
    scope = f"seed:{seed}" if seed is not None else ""
    if named.lower() in {"seed", "num_seeds", "n_seeds"} and raw.isdecimal():
        if named.lower() == "seed":
            yield fact("seed", int(raw), scope=scope or f"seed:{raw}")
        else:
            yield fact("num_seeds", int(raw))
        return
    if kind == "number" and named.lower() in _SCORED and (digits := raw.replace("_", "")).isdecimal():
        yield fact("stated_tokens", int(digits), scope=scope)
        return
    if kind == "number" and (match := _SETTING.match(named.lower())):
        yield fact(f"setting.{match[1].replace('n_layers', 'num_layers')}", raw, scope=scope)
        return
    found = quantity(named)
    if found is None or re.search(r"epoch|subset|note|method|tokens_per", named, re.I):
        return
    if (
        kind == "string"
        and found.name in {"val_bpb", "val_loss"}
        and not re.match(r"^~?\d+\.\d+\s*(\W|$)", raw)
    ):
        return
    if kind == "string" and not re.match(r"\s*(?:[~≈(]|about |approx\S* |est\S* )*\d", raw, re.I):
        return  # a file's name, a word
    measured = measure(found.name, raw, found.unit)
    if measured is not None:
        suffix = f"_{found.statistic}" if found.statistic in {"std", "mean"} else ""
        yield fact(found.name + suffix, measured[0], measured[1], scope)
