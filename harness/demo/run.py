"""Drives the stages of the demo: each one an ordinary command in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from audit.contracts import Exit, InputError
from harness.demo.result import Result, html, table
from harness.demo.scripts import Script, drawn, rewritten
from harness.demo.state import State, remove

CONTEXT, STRIDE, CHUNK = 256, 64, 4096
PROGRAM = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())"]


class StageFailed(InputError):
    """A stage ended with an exit code that the demo cannot go on with."""


class Demo:
    """One demo in one folder. ``args`` as parsed by `harness.demo.command`."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.fast = bool(args.fast)
        self.seconds = min(args.seconds, 8.0) if self.fast else args.seconds
        self.steps = args.steps
        self.seed = args.seed
        self.out = Path(args.out)
        options = {
            "seed": args.seed,
            "seconds": self.seconds,
            "steps": args.steps,
            "fast": self.fast,
            "data": str(Path(args.data).resolve()) if args.data else None,
            "val_documents": 12 if self.fast else 60,
        }
        self.given = Path(args.data) if args.data else None
        if self.given is not None and not self.given.is_dir():
            raise InputError(f"--data {args.data}: no such folder")
        self.state = State(self.out, options, fresh=args.fresh)
        self.options = options
        self.data = self.given or self.out / "data"
        self.color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.stage_number = 0

    # -- the way -----------------------------------------------------------------------------------------

    def run(self) -> int:
        begun = time.monotonic()
        if self.state.continued:
            print(f"continuing the demo in {self.out}; --fresh starts clean")
        self._data()
        self._train()
        self._pack()
        for name, title, extra in (
            ("flat", "Evaluate without overlap", ["--stride", str(CONTEXT)]),
            # The same chunks as below, so that the two runs differ in nothing but the adaptation.
            ("sliding", "Evaluate by sliding window", ["--stride", str(STRIDE), "--set", f"chunk={CHUNK}"]),
            ("ttt", "Evaluate by sliding window with score-first test-time training",
             ["--stride", str(STRIDE), "--ttt", "sgd", "--set", f"chunk={CHUNK}", "--set", "lr=0.02", "--set", "epochs=2"]),
        ):  # fmt: skip
            self._evaluate(name, title, extra)
        self._verify()
        self._tamper()
        self._audit()
        return self._report(time.monotonic() - begun)

    def _data(self) -> None:
        self._title("data", "Real text, a tokenizer and shards")
        if self.given is not None:
            self._command("data", ["data", "inspect", str(self.data)])
            return
        if not self.state.done("data"):
            remove(self.data)
        # 1,024 pieces and the official shard format; the first documents are the validation split.
        words = ["data", "build", "--out", str(self.data), "--val-documents", str(self.options["val_documents"])]
        self._command("data", words)

    def _train(self) -> None:
        self._title("train", "Train the small reference model")
        self._command(
            "train",
            ["train", "demo", "--data", str(self.data), "--out", str(self.out / "train"),
             *(["--steps", str(self.steps), "--seconds", "0"] if self.steps else ["--seconds", f"{self.seconds:g}"]),
             "--seed", str(self.seed), "--set", "validate_tokens=10000000"],
        )  # fmt: skip

    def _pack(self) -> None:
        self._title("pack", "Quantize to 6 bits and pack into one artifact")
        self._command(
            "pack",
            ["quantize", str(self.out / "train" / "checkpoint.pt"), "--out", str(self.out / "model.art"),
             "--bits", "6", "--compressor", "zstd"],
        )  # fmt: skip

    def _evaluate(self, name: str, title: str, extra: list[str]) -> None:
        self._title(name, title)
        out = self.out / name
        words = ["eval", str(self.out / "model.art"), "--data", str(self.data), "--out", str(out),
                 "--context", str(CONTEXT), "--seed", str(self.seed), "--device", "cpu", *extra]  # fmt: skip
        if not self.state.done(name):
            # A demo is small: an evaluation that was cut off is done again rather than continued.
            remove(out)
        self._command(name, words)

    def _verify(self) -> None:
        self._title("verify", "Verify the scorecards offline; execute one chunk again")
        for name in ("flat", "sliding", "ttt"):
            words = ["verify", str(self.out / name), "--artifact", str(self.out / "model.art"), "--data", str(self.data),
                     "--format", "json"]  # fmt: skip
            if name == "ttt":
                words += ["--replay", "1"]
            code = self._command(
                f"verify-{name}", words, into=self.out / f"verify-{name}.json", allowed={0, 1, 3}
            )
            print(f"  {name:8} {'verified' if code == 0 else 'NOT VERIFIED'}")

    def _tamper(self) -> None:
        """One byte of a copy is changed at a place that the seed draws; the verifier must reject it."""
        self._title("tamper", "Change one byte of a copy of a scorecard and verify it again")
        copy = self.out / "tampered"
        if not self.state.done("tamper"):
            remove(copy)
            shutil.copytree(self.out / "ttt", copy)
            files = sorted(p for p in copy.iterdir() if p.name in ("scorecard.jsonl", "nll.npy"))
            rng = random.Random(self.seed + 2)
            victim = rng.choice(files)
            content = bytearray(victim.read_bytes())
            at = rng.randrange(len(content))
            content[at] ^= 1 << rng.randrange(8)
            victim.write_bytes(bytes(content))
            facts = {"file": victim.name, "offset": at}
            code = self._command(
                "tamper", ["verify", str(copy)], allowed={0, 1, 2, 3}, quiet=True, facts=facts, force=True
            )
        else:
            facts, code = self.state.stages["tamper"], self.state.stages["tamper"]["exit"]
        print(f"  byte {facts['offset']:,} of {facts['file']} changed: {'REJECTED' if code in (1, 2) else 'accepted'}")

    def _audit(self) -> None:
        self._title("audit", "Audit scripts of known verdict, and rewrites of them made now")
        folder = self.out / "audit"
        if not self.state.done("audit-scripts"):
            remove(folder)
        folder.mkdir(exist_ok=True)
        scripts = drawn(self.seed, 2, 4) if self.fast else drawn(self.seed, 4, 6)
        scripts += rewritten(self.seed, 1 if self.fast else 3, folder / "made")
        self.state.ended("audit-scripts", exit=0)
        self.scripts: list[tuple[Script, Path]] = []
        for number, script in enumerate(scripts):
            target = folder / f"{number:02d}.json"
            self._command(
                f"audit-{number:02d}",
                ["audit", str(script.path), "--format", "json", "--output", str(target)],
                allowed={0, 1, 3}, quiet=True,
            )  # fmt: skip
            verdicts = [s["verdict"] for s in json.loads(target.read_text(encoding="utf-8"))["submissions"]]
            right = set(verdicts) <= set(script.expected)
            mark = "as expected" if right else f"EXPECTED {'/'.join(script.expected)}"
            print(f"  {'/'.join(verdicts):12} {mark:22} {script.name}  ({script.made})")
            self.scripts.append((script, target))

    def _report(self, seconds: float) -> int:
        result = Result.collect(self.out, self.state, self.scripts, data=self.data)
        document = result.document(self.options)
        (self.out / "result.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (self.out / "report.html").write_text(html(document), encoding="utf-8")
        self.state.save(finished=True)
        print()
        print(table(document))
        print(f"\nreport: {self.out / 'report.html'}   ({seconds:.0f} s)")
        return int(Exit.OK if document["as_expected"] else Exit.VIOLATION)

    # -- one command -------------------------------------------------------------------------------------

    def _title(self, name: str, text: str) -> None:
        self.stage_number += 1
        line = f"[{self.stage_number}/9] {text}"
        print(f"\n\033[1m{line}\033[0m" if self.color else f"\n{line}", flush=True)

    def _command(
        self,
        name: str,
        words: list[str],
        *,
        into: Path | None = None,
        allowed: set[int] | None = None,
        quiet: bool = False,
        facts: dict[str, Any] | None = None,
        force: bool = False,
    ) -> int:
        """Runs one command of the program unless a run before this one ended it; returns its exit code.

        Raises `StageFailed` for a code outside ``allowed`` and passes Ctrl-C on after the child ended.
        """
        shown = "$ referee " + " ".join(words)
        if self.state.done(name) and not force:
            print(f"  {shown}\n  (done before)" if not quiet else f"  {shown} (done before)")
            return int(self.state.stages[name]["exit"])
        print(f"  \033[2m{shown}\033[0m" if self.color else f"  {shown}", flush=True)
        begun = time.monotonic()
        code = run_child([*PROGRAM, *words], into=into, silent=quiet)
        if code == -signal.SIGINT or code == 130:
            raise KeyboardInterrupt
        if code not in (allowed or {0}):
            raise StageFailed(f"stage {name} ended with exit code {code}; the demo cannot go on (see above)")
        self.state.ended(name, exit=code, seconds=round(time.monotonic() - begun, 2), command=words, **(facts or {}))
        return code


def run_child(argv: list[str], *, into: Path | None, silent: bool) -> int:
    """Runs a child to its end and returns its exit code; on Ctrl-C waits until the child has cleaned up."""
    environment = dict(os.environ)
    # Two busy-waiting threads on a machine that also does something else slow each other down tenfold.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("PYTHONUNBUFFERED", "1")
    handle = into.open("w", encoding="utf-8") if into is not None else None
    output: Any = handle or (subprocess.DEVNULL if silent else None)
    child = subprocess.Popen(argv, stdout=output, stderr=subprocess.DEVNULL if silent else None, env=environment)
    try:
        return child.wait()
    except KeyboardInterrupt:
        # The terminal sent the signal to the child as well; it may need a moment to save its state.
        try:
            child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    finally:
        if handle is not None:
            handle.close()


