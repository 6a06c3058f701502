"""What of a call or of a script's comments has no effect, or not the one that was meant: for standard error, not for the verdict."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from audit import suppress
from audit.context import Context
from audit.knobs.model import WORLD_SIZE

#: words that stand for a number where a setting is a switch
_SWITCH = frozenset({"", "true", "false", "yes", "no", "on", "off", "none"})


def remarks(ctx: Context, texts: Mapping[str, str]) -> Iterator[str]:
    """One line each: what is wrong, where, and what to do."""
    yield from _settings(ctx, texts)
    if not ctx.options.ignore_suppressions:
        for path, text in texts.items():
            if "referee:" in text:
                yield from (f"{path}:{line}: {said}" for line, said in suppress.mistakes(text))


def _settings(ctx: Context, texts: Mapping[str, str]) -> Iterator[str]:
    declared = ctx.knobs.declared if ctx.knobs is not None else {}
    for name, value in ctx.options.env.items():
        found = declared.get(name)
        if found is None:
            word = re.compile(rf"\b{re.escape(name)}\b")
            if name != WORLD_SIZE and texts and not any(word.search(text) for text in texts.values()):
                near = get_close_matches(name, declared, n=1)
                hint = f"did you mean {near[0]}?" if near else "its settings: " + (", ".join(sorted(n for n in declared if n[0] != "-")[:5]) or "none")
                yield f"--env {name}={value} changes nothing: {ctx.primary} reads no setting of that name; {hint}"
        elif _number(found.default) and not _number(value) and value.lower() not in _SWITCH:
            yield (
                f"--env {name}={value}: {found.path}:{found.line} reads it with the default {found.default}, and {value!r} is no "
                "number; what it decides may be taken as on"
            )


def _number(text: str | None) -> bool:
    try:
        float(text or "x")
    except ValueError:
        return False
    return True
