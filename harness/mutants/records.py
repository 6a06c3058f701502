"""Tampering with scorecards: each case changes what an honest run wrote, most with a chain that is valid again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.evaluate.replay import replay
from harness.evaluate.stream import open_stream
from harness.mutants.lab import Lab, build
from harness.mutants.runs import checked
from harness.probe.probes import Fired
from harness.scorecard.chain import EVENTS, GENESIS, SCORES, seal
from harness.scorecard.forge import forge
from harness.scorecard.verify import verify
from harness.scorecard.writer import read_events


def _honest(lab: Lab, folder: Path, ttt: str = "sgd") -> Path:
    lab.evaluation(ttt=ttt).run(folder)
    return folder


def rechain(folder: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Rewrites the events with a chain that is valid again: what a tamperer with our code would do."""
    events = change(read_events(folder))
    prev, lines = GENESIS, []
    for number, event in enumerate(events):
        body = {k: v for k, v in event.items() if k not in ("hash", "prev", "seq")}
        line, prev = seal(body, prev, number)
        lines.append(line)
    (folder / EVENTS).write_bytes(b"".join(lines))


def edited_line(lab: Lab, folder: Path) -> list[Fired]:
    """One digit of one event is edited."""
    path = _honest(lab, folder) / EVENTS
    lines = path.read_bytes().splitlines(keepends=True)
    event = json.loads(lines[1])
    lines[1] = lines[1].replace(str(event["bytes"]).encode(), str(event["bytes"] + 1).encode(), 1)
    path.write_bytes(b"".join(lines))
    return checked(folder)


def edited_score(lab: Lab, folder: Path) -> list[Fired]:
    """One stored score is made smaller."""
    path = _honest(lab, folder) / SCORES
    nll = np.load(path, mmap_mode="r+")
    nll[17] *= 0.5
    nll.flush()
    return checked(folder)


def inflated_bytes(lab: Lab, folder: Path) -> list[Fired]:
    """Bytes are doubled everywhere and the chain is rebuilt: consistent in itself."""

    def change(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for e in events:
            if e["kind"] == "score":
                e["bytes"] *= 2
        events[-1]["bytes"] *= 2
        events[-1]["bits_per_byte"] /= 2
        return events

    rechain(_honest(lab, folder), change)
    return checked(folder) or checked(folder, lab)


def hidden_order(lab: Lab, folder: Path) -> list[Fired]:
    """The update that used a chunk is moved before its score, chain rebuilt (as if training came first)."""

    def change(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        score = next(i for i, e in enumerate(events) if e["kind"] == "score" and e["chunk"] == 1)
        update = next(i for i, e in enumerate(events) if e["kind"] == "update" and e["chunk"] == 1)
        events[score], events[update] = events[update], events[score]
        return events

    rechain(_honest(lab, folder), change)
    return checked(folder)


def hidden_use(lab: Lab, folder: Path) -> list[Fired]:
    """An update's record of what it used reaches into the next chunk; its author hopes that nobody reads it."""

    def change(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        update = next(e for e in events if e["kind"] == "update")
        update["used"] = [[0, update["used"][-1][1] + 64]]
        return events

    rechain(_honest(lab, folder), change)
    return checked(folder)


def missing_chunk(lab: Lab, folder: Path) -> list[Fired]:
    """A chunk with a bad score is left out, totals adjusted, chain rebuilt."""

    def change(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        out = next(e for e in events if e["kind"] == "score" and e["chunk"] == 2)
        foot = events[-1]
        foot["nats"] -= out["nats"]
        foot["bytes"] -= out["bytes"]
        foot["targets"] -= out["targets"][1] - out["targets"][0]
        foot["bits_per_byte"] = foot["nats"] / np.log(2) / foot["bytes"]
        return [e for e in events if e.get("chunk") != 2]

    rechain(_honest(lab, folder), change)
    return checked(folder)


def invented_scores(lab: Lab, folder: Path) -> list[Fired]:
    """No run took place: scores are invented and a scorecard is written around them."""
    real = folder / "real"
    _honest(lab, real, "none")
    header = {k: v for k, v in read_events(real)[0].items() if k not in ("kind", "hash", "prev", "seq", "schema")}
    nll = np.random.default_rng(0).gamma(2.0, 1.0, lab.stream.targets).astype(np.float32)
    forge(folder / "forged", lab.stream, nll, context=32, stride=8, chunk=64, header=header)
    if found := checked(folder / "forged", lab):
        return found
    again = replay(str(folder / "forged"), 3, str(lab.artifact), str(lab.data), str(lab.tokenizer), builder=_rebuild)
    return [Fired(mechanism="P4 replay", what=again.reason)] if again.status == "violated" else []


def _rebuild(opened: Any, device: str) -> torch.nn.Module:
    return build(opened.config, opened.arrays()).to(device)


def other_artifact(lab: Lab, folder: Path) -> list[Fired]:
    """The scorecard of one artifact is submitted with another."""
    _honest(lab, folder)
    inputs = {"artifact": lab.small, "tokenizer": lab.tokenizer, "data": lab.data}
    return [Fired(mechanism=f"verify: {p.partition(':')[0]}", what=p) for p in verify(folder, **inputs).problems]


def unmarked_cap(lab: Lab, folder: Path) -> list[Fired]:
    """Only the first part of the split was evaluated, and the mark that says so is removed."""
    short = open_stream(lab.data, lab.tokenizer, context=32, max_tokens=130)
    lab.evaluation(stream=short).run(folder)

    def change(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        events[0]["stream"]["partial"] = events[-1]["partial"] = False
        return events

    rechain(folder, change)
    return checked(folder, lab)
