"""On which tokens of its window each element of an activation may depend, where a model is given the tokens it predicts.

No rule lives here. A model that is given its own targets has to move them: by a position, or, where it merges them into
patches, by a patch. `audit.rules.shifted` follows a model's methods from the tokens to the predictions with one `Reach`
per name; here stands what shapes, slices, joins and pads do to it. Where an element's place is not known any more,
there is no value, and nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

#: axes: "b" windows, "t" positions, "n" patches, "j" the positions of one, "bn" the patches of all windows, "f" all positions of all windows, "1" of
#: length one, "." anything that is no place in the window
_TIME = frozenset({"t", "n", "j", "bn", "f"})
_PARTS = {"bn": ("b", "n"), "t": ("n", "j")}
_ROWS = (["b", "t"], ["b", "n", "j"])


@dataclass(frozen=True, slots=True)
class Reach:
    """``axes``: None where they are not known, of what depends on no token; ``fine``: an element at a position depends
    on tokens up to that position plus this; ``coarse``: one of a patch on all tokens of the patches up to that one plus
    this; None for either: on none that way. ``lead``: how many elements stand before that of the first target; ``short``: by how many elements its axis of places is shorter, at its end;
    ``unit``: how long a patch is, as it is written or known; ``wraps``: its first element is made of the last;
    ``front``: zeros that stand in front of it."""

    axes: tuple[str, ...] | None = None
    fine: int | None = None
    coarse: int | None = None
    lead: int = 0
    short: int = 0
    unit: Any = None
    wraps: bool = False
    front: Any = None

    @property
    def free(self) -> bool:
        return self.fine is None and self.coarse is None

    def axis(self, n: Any) -> str:
        return self.axes[n] if self.axes is not None and isinstance(n, int) and -len(self.axes) <= n < len(self.axes) else ""

    @property
    def sees(self) -> bool | None:
        """Does it hold the token that it stands for, or a later one."""
        late = (self.fine is not None and self.fine >= 0) or (self.coarse is not None and self.coarse >= 0)
        return None if self.short or self.front is not None else late or self.wraps


#: what is not known; a Python object so that it can be told from "no value given"
UNKNOWN = None
FREE = Reach()


def _most(*several: int | None) -> int | None:
    return max((x for x in several if x is not None), default=None)


def joined(a: Reach | None, b: Reach | None) -> Reach | None:
    """What is made of both, element by element; the axes of the one that has them all."""
    if a is None or b is None:
        return UNKNOWN
    if a.free or b.free:
        own, other = (b, a) if a.free else (a, b)
        if own.free or own.axes is None:
            return FREE if own.free else UNKNOWN
        if other.axes is not None and len(other.axes) > len(own.axes):
            return UNKNOWN
        # What is of length one may be spread over as many as the other has.
        before = len(own.axes) - len(other.axes or ())
        axes = [
            "." if a == "1" and not (other.axes is not None and (n < before or other.axes[n - before] == "1")) else a
            for n, a in enumerate(own.axes)
        ]
        return replace(own, axes=tuple(axes))
    if a.axes is None or b.axes is None or len(a.axes) != len(b.axes) or a.short != b.short or a.lead != b.lead or (a.unit and b.unit and a.unit != b.unit):
        return UNKNOWN
    # Heads may be as many as a patch has positions; where all of a patch is seen alike, that is no matter.
    coarse = a.fine is None and b.fine is None
    if any(x != y and "1" not in (x, y) and not (coarse and {x, y} == {"j", "."}) for x, y in zip(a.axes, b.axes, strict=True)):
        return UNKNOWN
    axes = [x if x == y else y if x == "1" else x if y == "1" else "." for x, y in zip(a.axes, b.axes, strict=True)]
    front = a.front if a.front is b.front else None
    if (a.front is None) != (b.front is None):
        return UNKNOWN
    return Reach(tuple(axes), _most(a.fine, b.fine), _most(a.coarse, b.coarse), a.lead, a.short, a.unit or b.unit, a.wraps or b.wraps, front)


def either(a: Reach | None, b: Reach | None) -> Reach | None:
    """After a branch that nothing decides."""
    if a == b:
        return a
    if a is None or b is None:
        return UNKNOWN
    if a.free and b.free:
        return FREE
    if not a.free and not b.free and a.axes != b.axes:
        return UNKNOWN
    return joined(a, b)


def moved(v: Reach, axis: int, by: int) -> Reach | None:
    """Elements taken from ``by`` places further on."""
    kind = v.axis(axis)
    if kind in ("t", "j"):
        if v.coarse is not None and kind == "t":
            return UNKNOWN
        if v.coarse is not None and by > 0:
            return UNKNOWN
        return replace(v, fine=None if v.fine is None else v.fine + by)
    if kind == "n" and v.fine is None:
        return replace(v, coarse=None if v.coarse is None else v.coarse + by)
    return UNKNOWN


def pooled(v: Reach, axis: int, keep: bool = False) -> Reach | None:
    """One element of all positions of a patch, or of channels."""
    if v.axes is None or not v.axis(axis):
        return v if v.free else UNKNOWN
    at = axis % len(v.axes)
    axes = (*v.axes[:at], *(["1"] if keep else []), *v.axes[at + 1 :])
    kind = v.axes[at]
    if kind in ("b", "t", "n", "bn", "f"):
        return UNKNOWN if not v.free else FREE
    if kind != "j":
        return replace(v, axes=axes)
    return _whole(replace(v, axes=axes))


def _whole(v: Reach) -> Reach | None:
    """What all positions of a patch together hold: tokens of the patch in which the last of these lie."""
    if v.fine is None:
        return replace(v, short=0)
    if isinstance(v.unit, int) and v.unit > 0:
        own = (v.unit - 1 + v.fine) // v.unit
    elif v.fine in (0, -1):  # a patch has more than one position
        own = 0
    else:
        return UNKNOWN
    return replace(v, fine=None, coarse=_most(v.coarse, own), short=0)


def spread(v: Reach, unit: Any) -> Reach | None:
    """Each patch's element at all its positions."""
    if v.axes is None or v.axes.count("n") != 1 or "j" in v.axes or v.unit is None or v.unit != unit or v.short:
        return UNKNOWN
    return replace(v, axes=tuple("t" if a == "n" else a for a in v.axes))


def folded(v: Reach, unit: Any) -> Reach | None:
    """(windows, channels, positions) after a filter as long as its step: one element per patch."""
    if v.axes is None or v.axis(-1) != "t" or v.short or v.coarse is not None or v.front is not None:
        return UNKNOWN
    return _whole(replace(v, axes=(*v.axes[:-1], "n"), unit=unit))


def turned(v: Reach, order: list[int]) -> Reach | None:
    if v.axes is None:
        return v
    return replace(v, axes=tuple(v.axes[n] for n in order)) if len(order) == len(v.axes) and all(v.axis(n) for n in order) else UNKNOWN


def _atoms(axes: tuple[str, ...]) -> list[str]:
    return [x for a in axes for x in _PARTS.get(a, (a,))]


def viewed(v: Reach, sizes: list[Any]) -> Reach | None:
    """After ``view``: sizes are axes' names, ("n", unit) or ("j", unit) for patches, "*" for what is left, "." for another."""
    if v.axes is None:
        return Reach(tuple("1" if s == "1" else "." for s in sizes)) if v.free else UNKNOWN
    if v.front is not None:
        return UNKNOWN
    unit = v.unit
    names: list[str] = []
    for s in sizes:
        name, told = s if isinstance(s, tuple) else (s, None)
        if told is not None and name in ("n", "j", "t"):
            if unit is not None and unit != told:
                return UNKNOWN
            unit = told
        names.append(name)
    patches = "n" in names or "j" in names or "bn" in names
    here = [x for a in v.axes for x in (_PARTS[a] if a == "bn" or (a == "t" and patches) else (a,)) if x != "1"]
    if v.short and patches:
        return UNKNOWN
    if here[:1] == ["f"] and names[:1] == ["b"]:
        here[:1] = _ROWS[patches]
    axes: list[str] = []
    merged = False
    for n, name in enumerate(names):
        if name == "1":
            axes.append("1")
            continue
        behind = [x for x in names[n + 1 :] if x != "1"]
        need = list(_PARTS.get(name, (name,)))
        if name in ("*", "."):
            if not here or all(x == "." for x in here):
                axes.append(".")
                continue
            if behind and all(x == "." for x in behind) and here[-1] == "." and all(x in _TIME or x == "b" for x in here[:-1]):
                taken, here = here[:-1], here[-1:]
                if name != "*":
                    return UNKNOWN
                if taken not in (["n", "j"], ["j"], ["n"], ["t"], *_ROWS, ["f"]):
                    return UNKNOWN
                axes.append("f" if taken in _ROWS else "t" if len(taken) == 2 else taken[0])
                continue
            if not behind and name == "*" and here[0] in ("j", "t") and set(here[1:]) <= {"."} and len(here) > 1 - (here[0] == "t"):
                if here[0] == "t" and len(here) > 1:
                    return UNKNOWN
                merged, here = here[0] == "j", []
                axes.append("." if merged else "t")
                continue
            if not behind and name == "*" and here in (["n", "j"], *_ROWS):
                axes.append("t" if here[0] == "n" else "f")
                here = []
                continue
            return UNKNOWN
        if here[: len(need)] == need:
            here = here[len(need) :]
        elif here[:1] == [name] or (here[:1] == ["."] and name == "j" and v.fine is None):
            here = here[1:]
        else:
            return UNKNOWN
        axes.append(name)
    if any(x != "." for x in here) or (here and not any(a == "." for a in axes)):
        return UNKNOWN
    made = replace(v, axes=tuple(axes), unit=unit)
    return _whole(made) if merged else made


__all__ = ["FREE", "Reach", "either", "folded", "joined", "moved", "pooled", "spread", "turned", "viewed"]
