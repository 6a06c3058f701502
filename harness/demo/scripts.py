"""Which scripts the demo audits: fixtures drawn by the seed, and rewrites of them made on the spot."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import audit
from audit.contracts import InputError

#: how a flip describes itself when it takes the flaw out; every other one puts one in
MENDING = ("below the score", "before the scored", "out of the key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One submission to audit. ``expected``: the verdicts that are right; ``made``: how it came to be."""

    name: str
    path: Path
    expected: tuple[str, ...]
    made: str


def fixture_root() -> Path:
    """The folder of fixture submissions of the source tree. Raises `InputError` where there is none."""
    root = Path(audit.__file__).resolve().parent.parent / "fixtures" / "submissions"
    if not root.is_dir():
        raise InputError(
            "the demo audits the fixtures of the source tree, which this installation lacks; run it from a clone"
        )
    return root


def cases(root: Path) -> list[tuple[str, Path, str, dict[str, str]]]:
    """(name, folder, expected verdict, environment) of every fixture, in a fixed order."""
    found = []
    for path in sorted(root.glob("*/*/expected.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        name = path.parent.relative_to(root).as_posix()
        found.append((name, path.parent, str(facts["verdict"]), dict(facts.get("env") or {})))
    return found


def drawn(seed: int, legal: int, illegal: int) -> list[Script]:
    """``legal`` clean and ``illegal`` accused fixtures, spread over the bases as far as they go."""
    rng = random.Random(seed)
    chosen = []
    for verdict, count in (("clean", legal), ("violation", illegal)):
        pool = [c for c in cases(fixture_root()) if c[2] == verdict and not c[3]]
        rng.shuffle(pool)
        used: dict[str, int] = {}
        while pool and count > 0:
            # The least used base first, so that no base crowds out another.
            pick = min(pool, key=lambda c: used.get(c[0].split("/")[0], 0))
            pool.remove(pick)
            used[pick[0].split("/")[0]] = used.get(pick[0].split("/")[0], 0) + 1
            chosen.append(Script(name=pick[0], path=pick[1], expected=(verdict,), made="fixture"))
            count -= 1
    return chosen


def _accused(folder: Path) -> bool:
    """Does the fixture hold code that breaks a rule and does not run: a flip might change nothing but that."""
    return bool(json.loads((folder / "expected.json").read_text(encoding="utf-8")).get("rules"))


def rewritten(seed: int, pairs: int, folder: Path) -> list[Script]:
    """``pairs`` verdict-preserving and as many verdict-flipping rewrites of single-file fixtures."""
    from audit.rewrite import random_rewrite

    rng = random.Random(seed + 1)
    shut = {name for name, folder_, verdict, _ in cases(fixture_root()) if verdict == "clean" and _accused(folder_)}
    pool = [
        c for c in cases(fixture_root())
        if c[2] in ("clean", "violation") and not c[3] and c[0] not in shut and [p.name for p in c[1].glob("*.py")] == ["train_gpt.py"]
    ]  # fmt: skip
    rng.shuffle(pool)
    made: list[Script] = []
    for kind in ("preserve", "flip"):
        count = 0
        for name, origin, verdict, _ in pool:
            if count == pairs:
                break
            text = (origin / "train_gpt.py").read_text(encoding="utf-8")
            try:
                changed, how = random_rewrite(text, rng.randrange(2**31), kind)
            except ValueError:
                continue  # nothing in this script can be rewritten in this way; take the next
            expected = verdict
            if kind == "flip":
                # A second flaw in a script that had one already turns nothing.
                mended = any(words in how for words in MENDING)
                if mended != (verdict == "violation"):
                    continue
                expected = "clean" if mended else "violation"
            target = folder / f"{kind}-{count}-{name.replace('/', '-')}"
            # What lies beside the script belongs to it: a helper in C, say.
            shutil.copytree(origin, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("expected.json"))
            (target / "train_gpt.py").write_text(changed, encoding="utf-8")
            made.append(Script(name=name, path=target, expected=(expected,), made=f"{kind}: {how}"))
            count += 1
    return made
