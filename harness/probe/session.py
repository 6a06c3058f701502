"""From a command line's arguments to a probed evaluator."""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audit.contracts import Exit, InputError
from harness.artifact.container import read_artifact
from harness.artifact.models import build_model
from harness.evaluate.stream import open_stream
from harness.probe.probes import Subject, probe, statement
from harness.probe.protocol import Evaluator, Setting
from harness.probe.strict import Strict
from harness.tokens.folder import find_tokenizer


def evaluator_of(name: str, chosen: dict[str, str], trusted: bool) -> Evaluator:
    """``strict``, ``strict:TTT`` or ``FILE.py:NAME``. Raises `InputError`."""
    kind, _, rest = name.partition(":")
    if kind == "strict":
        return Strict(ttt=rest or "none", chosen=chosen)
    file, colon, attribute = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise InputError(f"{name}: name an evaluator as strict, strict:TTT or FILE.py:NAME")
    if not trusted:
        raise InputError(f"{name}: its code would run in this process; say --trusted if it is your own")
    path = Path(file)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"{path}: no such evaluator file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = getattr(module, attribute)
    except Exception as error:
        raise InputError(f"{name}: cannot load it: {type(error).__name__}: {error}") from None
    return made() if isinstance(made, type) else made


def pairs(texts: list[str]) -> dict[str, str]:
    """KEY=VALUE texts as a dict. Raises `InputError`."""
    if wrong := [t for t in texts if "=" not in t]:
        raise InputError(f"--set {wrong[0]!r} is not KEY=VALUE")
    return dict(t.split("=", 1) for t in texts)


def examine(args: argparse.Namespace) -> dict[str, Any]:
    """Probes one evaluator; the result as plain JSON (schema ``referee.probe/1``)."""
    evaluator = evaluator_of(args.evaluator, pairs(args.overrides), args.trusted)
    opened = read_artifact(args.artifact)
    tokenizer = args.tokenizer or find_tokenizer(args.data)
    stream = open_stream(args.data, tokenizer, context=args.context, max_tokens=args.max_tokens)
    setting = Setting(context=args.context, stride=args.stride, chunk=args.chunk, vocab=stream.vocab, seed=args.seed)
    subject = Subject(
        evaluator=evaluator, model=lambda: build_model(opened).double(), tokens=stream.tokens,
        target_bytes=stream.target_bytes, setting=setting, probes=args.probes, sums=args.sums, seed=args.seed,
        ranks=args.ranks,
        # Scores come back as float32 from a scorecard: their rounding is no leak.
        tolerance=1e-5,
    )  # fmt: skip
    fired = probe(subject)
    return {
        "schema": "referee.probe/1", "evaluator": args.evaluator, "artifact": opened.digest,
        "targets": stream.targets, "setting": asdict(setting), "fired": [asdict(f) for f in fired],
        "statement": statement(subject), "exit": int(Exit.VIOLATION if fired else Exit.OK),
    }  # fmt: skip
