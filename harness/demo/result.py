"""The demo's outcome: one JSON document, a table for the terminal and a page for a browser."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from audit.contracts import InputError
from audit.render.page import badge, page
from harness.demo.scripts import Script
from harness.demo.state import State
from harness.report.charts import Block, Series, line_chart, time_line
from harness.report.scorecard import blocks, claims_table, read_events, running

SCHEMA = "referee.demo/1"


@dataclass(slots=True, kw_only=True)
class Result:
    """Everything measured, read back from the files that the stages wrote."""

    training: list[dict[str, Any]]
    evaluations: dict[str, list[dict[str, Any]]]
    verified: dict[str, dict[str, Any]]
    tamper: dict[str, Any]
    audits: list[dict[str, Any]]
    artifact_bytes: int
    stages: dict[str, dict[str, Any]]

    @classmethod
    def collect(cls, out: Path, state: State, scripts: list[tuple[Script, Path]], *, data: Path) -> Result:
        lines = (out / "train" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        audits = []
        for script, place in scripts:
            document = json.loads(place.read_text(encoding="utf-8"))
            verdicts = sorted({s["verdict"] for s in document["submissions"]})
            audits.append({
                "name": script.name, "made": script.made, "expected": list(script.expected), "verdicts": verdicts,
                "right": set(verdicts) <= set(script.expected), "document": document, "path": str(script.path),
            })  # fmt: skip
        return cls(
            training=[json.loads(line) for line in lines if line.strip()],
            evaluations={name: read_events(out / name) for name in ("flat", "sliding", "ttt")},
            verified={
                name: json.loads((out / f"verify-{name}.json").read_text(encoding="utf-8"))
                for name in ("flat", "sliding", "ttt")
            },
            tamper=state.stages["tamper"],
            audits=audits,
            artifact_bytes=(out / "model.art").stat().st_size,
            stages=state.stages,
        )

    def document(self, options: dict[str, Any]) -> dict[str, Any]:
        """The saved form, schema ``referee.demo/1``."""
        measured = [r for r in self.training if r.get("event") == "validation"]
        steps = [r for r in self.training if "loss" in r and "step" in r]
        evaluations = {}
        for name, events in self.evaluations.items():
            footer = events[-1]
            if footer["kind"] != "footer":
                raise InputError(f"the scorecard of {name} is incomplete; run the demo again")
            line = running(events)
            evaluations[name] = {
                "bits_per_byte": footer["bits_per_byte"], "targets": footer["targets"], "bytes": footer["bytes"],
                "partial": footer["partial"], "claims": self.verified[name].get("claims") or footer["claims"],
                "verified": self.stages[f"verify-{name}"]["exit"] == 0, "seconds": footer["seconds"],
                "running": {"targets": list(line.x), "bits_per_byte": list(line.y)},
                "blocks": [[b.kind, b.chunk, b.seconds, b.label] for b in blocks(events)],
            }  # fmt: skip
        rejected = self.tamper["exit"] in (1, 2)
        return {
            "schema": SCHEMA,
            "options": options,
            "as_expected": rejected
            and all(e["verified"] for e in evaluations.values())
            and all(a["right"] for a in self.audits)
            and measured[-1]["bpb"] < measured[0]["bpb"],
            "training": {
                "untrained_bpb": measured[0]["bpb"], "trained_bpb": measured[-1]["bpb"],
                "validation": [[r["elapsed_s"], r["bpb"]] for r in measured],
                "steps": [[r["step"], r["loss"], r.get("tokens_per_s")] for r in steps],
            },
            "artifact_bytes": self.artifact_bytes,
            "evaluations": evaluations,
            "tamper": {"file": self.tamper["file"], "offset": self.tamper["offset"], "rejected": rejected},
            "audits": self.audits,
            "seconds": {k: v.get("seconds") for k, v in self.stages.items() if v.get("seconds") is not None},
        }  # fmt: skip


LABELS = {
    "flat": "after quantization, no overlap",
    "sliding": "sliding window",
    "ttt": "sliding window, score-first TTT",
}


def _claims(claims: dict[str, Any]) -> str:
    return ", ".join(f"{k} {c['status']}" for k, c in claims.items())


def table(document: dict[str, Any]) -> str:
    """The closing table for a terminal."""
    training, evaluations = document["training"], document["evaluations"]
    rows = [
        ("untrained", training["untrained_bpb"], ""),
        ("trained, before quantization", training["trained_bpb"], ""),
    ]
    for name, label in LABELS.items():
        e = evaluations[name]
        rows.append((label, e["bits_per_byte"], ("verified" if e["verified"] else "NOT VERIFIED") + ": " + _claims(e["claims"])))
    lines = ["bits per byte"]
    lines += [f"  {label:34} {value:8.4f}   {note}".rstrip() for label, value, note in rows]
    lines.append(f"artifact bytes                       {document['artifact_bytes']:8,}   (cap 16,000,000)")
    t = document["tamper"]
    word = "rejected" if t["rejected"] else "NOT REJECTED"
    lines.append(f"one byte of a scorecard changed      {word}   (byte {t['offset']:,} of {t['file']})")
    right = sum(a["right"] for a in document["audits"])
    lines.append(f"audits with the expected verdict     {right} of {len(document['audits'])}")
    for a in document["audits"]:
        flag = " " if a["right"] else "!"
        lines.append(f" {flag} {'/'.join(a['verdicts']):12} {a['name']:34} {a['made']}")
    return "\n".join(lines)


def html(document: dict[str, Any]) -> str:
    """One self-contained page."""
    training, evaluations = document["training"], document["evaluations"]
    options = document["options"]
    verdict = "everything came out as expected" if document["as_expected"] else "something did not come out as expected"
    length = f"{options['steps']} steps" if options.get("steps") else f"{options['seconds']:g} s"
    figures = [
        (f"{training['untrained_bpb']:.3f}", "bits per byte, untrained"),
        (f"{training['trained_bpb']:.3f}", "trained, before quantization"),
        *((f"{evaluations[n]['bits_per_byte']:.3f}", label) for n, label in LABELS.items()),
        (f"{document['artifact_bytes']:,}", "artifact bytes of 16,000,000"),
    ]
    parts = [
        "<h1>referee demo</h1>",
        f'<p class="dim">seed {options["seed"]}, {length} of training; {verdict}.</p>',
        '<div class="figures">' + "".join(f"<div><b>{b}</b><span>{escape(s)}</span></div>" for b, s in figures) + "</div>",
        "<h2>Training</h2>",
        line_chart(
            [Series(name="training loss", x=[s[0] for s in training["steps"]], y=[s[1] for s in training["steps"]])],
            title="Loss curve", x_label="step", y_label="nats per token",
        ),
        "<h2>The proof</h2>",
        "<p>Each claim stands alone. What was not shown says so.</p>",
    ]  # fmt: skip
    for name, label in LABELS.items():
        e = evaluations[name]
        parts.append(
            f"<h3>{escape(label)} {badge('verified' if e['verified'] else 'rejected')}</h3>"
            f'<p class="dim">{e["targets"]:,} targets, {e["bytes"]:,} bytes, {e["bits_per_byte"]:.6f} bits per byte</p>'
            + claims_table(e["claims"])
        )
    t = document["tamper"]
    parts.append(
        f"<p>One bit of byte {t['offset']:,} of a copy of <code>{escape(t['file'])}</code> was changed: "
        f"{badge('rejected', 'clean') if t['rejected'] else badge('accepted', 'violation')}</p>"
    )
    line = [Block(kind=k, chunk=c, seconds=s, label=text) for k, c, s, text in evaluations["ttt"]["blocks"]]
    parts += [
        "<h2>Time line of the adapted run</h2><p>Every chunk is scored before it is trained on.</p>",
        time_line(line, title="Score and update events per chunk"),
        "<h2>Running bits per byte</h2>",
        line_chart(
            [
                Series(name=LABELS[n], x=evaluations[n]["running"]["targets"], y=evaluations[n]["running"]["bits_per_byte"])
                for n in ("sliding", "ttt")
                if len(evaluations[n]["running"]["targets"]) > 1
            ],
            title="Running bits per byte", x_label="targets scored", y_label="bits per byte",
        ),
        "<h2>Audits</h2>",
        "<p>Scripts of known verdict drawn by the seed, and random rewrites of them made during this run: "
        "<em>preserve</em> must keep the verdict, <em>flip</em> must change it.</p>",
    ]  # fmt: skip
    rows = "".join(
        f"<tr><td>{' '.join(badge(v) for v in a['verdicts'])}</td><td>{escape('/'.join(a['expected']))}{'' if a['right'] else ' <b>unexpected</b>'}</td>"
        f"<td>{escape(a['name'])}</td><td>{escape(a['made'])}</td></tr>"
        for a in document["audits"]
    )
    parts.append(
        '<div class="scroll"><table><tr><th>verdict</th><th>expected</th><th>script</th><th>made</th></tr>'
        f"{rows}</table></div>"
    )
    from audit.render.html import submissions_html

    for a in document["audits"]:
        parts.append(
            f"<details{'' if a['right'] else ' open'}><summary>{' '.join(badge(v) for v in a['verdicts'])} {escape(a['name'])}, "
            f'<span class="dim">{escape(a["made"])}</span></summary>{submissions_html(a["document"])}</details>'
        )
    return page("referee demo", "\n".join(parts))


def render(document: dict[str, Any], format: str) -> str:
    """Renderer of schema ``referee.demo/1`` for ``referee report``."""
    if format == "json":
        return json.dumps(document, indent=1)
    if format == "text":
        return table(document)
    if format == "markdown":
        return "```\n" + table(document) + "\n```"
    if format == "html":
        return html(document)
    raise InputError(f"a demo has no {format} form; choose text, json, markdown or html")
