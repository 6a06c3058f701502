"""The auditor's pipeline: peel, lower, knobs, trace, evidence, rules, verdict.

Each stage is another package's work; this module only hands one stage's result to the next, keeps
the clock, and makes sure that a failing stage or rule ends in ``undetermined`` with its reason and never in
a crash or in ``clean``. Only a failure outside of these (the program's own front) is exit code 70.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit import baseline, ir, suppress
from audit.context import Context, Facts, Options, Problem
from audit.contracts import InputError
from audit.excerpts import excerpts, with_columns
from audit.model import Fact, Finding, Obligation, Step, Submission
from audit.rules.base import Rule, rule_modules
from audit.streams import say
from audit.verdict import decide, in_force, missing_input, settle, weigh

if TYPE_CHECKING:
    from audit.source import SubmissionFiles
    from audit.source.program import Program

#: letters of a printed line's label from which it is looked up in the source
LEAST_LABEL = 8


@dataclass(slots=True)
class Timings:
    """Seconds per stage and per rule, summed over submissions."""

    stages: dict[str, float] = field(default_factory=dict)
    rules: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - start


def audit_target(
    target: str, options: Options | None = None, timings: Timings | None = None
) -> list[Submission]:
    """Audits a script or a submission folder; one result per primary script.

    Raises InputError where the target does not exist.
    """
    from audit.source import open_path

    options = options or Options()
    timings = timings or Timings()
    with timings.stage("open"):
        opened = open_path(target)
    return [_audit_one(files, options, timings) for files in opened]


def audit_revision(
    repo: str, rev: str, options: Options | None = None, timings: Timings | None = None
) -> list[Submission]:
    """Audits what one revision of a local git repository submits, without a checkout."""
    from audit.source import open_git

    options = options or Options()
    timings = timings or Timings()
    with timings.stage("open"):
        opened = open_git(repo, rev, options.base, f"{repo}@{rev}")
    return [_audit_one(files, options, timings) for files in opened]


def _audit_one(files: SubmissionFiles, options: Options, timings: Timings) -> Submission:
    """`audit_files`, in a process of its own where ``options.limit_s`` asks for that."""
    if options.limit_s is None:
        return audit_files(files, options, timings)
    from audit.isolate import Lost, isolated

    def work() -> tuple[Submission, Timings]:
        spent = Timings()
        return audit_files(files, options, spent), spent

    try:
        submission, spent = isolated(work, options.limit_s)
    except Lost as loss:
        reason = f"the audit did not end: {loss}"
        return Submission(
            target=files.target,
            commit=files.commit,
            primary=files.primary,
            reason=reason,
            obligations=[Obligation(rule="S3", status="undetermined", reason=reason)],
        )
    for total, part in ((timings.stages, spent.stages), (timings.rules, spent.rules)):
        for name, seconds in part.items():
            total[name] = total.get(name, 0.0) + seconds
    return submission


def audit_text(text: str, options: Options | None = None, name: str = "train_gpt.py") -> Submission:
    """Audits one script given as text, as if it lay alone in a folder."""
    return audit_files(text_files({name: text}, name), options or Options())


def text_files(texts: Mapping[str, str], primary: str) -> SubmissionFiles:
    """A submission that exists only in memory."""
    from audit.source import MemoryTree, SubmissionFiles

    tree = MemoryTree({path: text.encode("utf-8", "surrogateescape") for path, text in texts.items()})
    return SubmissionFiles(target=primary, tree=tree, primary=primary, paths=list(texts), changed=list(texts))


def audit_files(files: SubmissionFiles, options: Options, timings: Timings | None = None) -> Submission:
    """Audits one submission: its primary script with everything that was submitted beside it."""
    timings = timings or Timings()
    submission = Submission(target=files.target, commit=files.commit, primary=files.primary)
    if files.primary is None:
        submission.reason = files.reason or "no script among the submitted files"
        return submission
    ctx = build_context(files, options, timings)
    rules = _rules(options)
    submission.sha256 = hashlib.sha256(files.read(files.primary) or b"").hexdigest()
    submission.peeled = list(ctx.peeled.layers) if ctx.peeled is not None else []
    findings, obligations = run_rules(rules, ctx, timings)
    other: Context | None = None
    with _guard(ctx, "doubt"):
        findings, other = _other_reading(rules, ctx, timings, findings)
    with timings.stage("classify"), _guard(ctx, "classify"):
        _classify(submission, ctx, other)
    with timings.stage("verdict"):
        _conclude(submission, rules, findings, obligations, ctx)
    if options.dump_source is not None:
        from audit.dump import dump_sources

        dump_sources(ctx, options.dump_source)
    return submission


def _other_reading(
    rules: Iterable[Rule], ctx: Context, timings: Timings, findings: dict[str, list[Finding]]
) -> tuple[dict[str, list[Finding]], Context | None]:
    """The findings, with those in doubt that hang on settings which the papers contradict, and what the second
    reading saw; see `audit.doubt`."""
    from audit import doubt
    from audit.knobs import other_reading
    from audit.trace import scores_any

    if ctx.trace is None or ctx.knobs is None or ctx.files is None:
        return findings, None
    names = doubt.doubtful(ctx.knobs, ctx.trace.deciding - ctx.trace.seeds)
    if not names:
        return findings, None
    other = replace(ctx, knobs=other_reading(ctx.knobs, names), trace=None, shared={}, problems=list(ctx.problems))
    with timings.stage("trace"):
        _trace(other, ctx.files)
        _find_headline(other)
    if not scores_any(other.trace):
        return findings, None  # no run that was scored had these settings
    second, _stated = run_rules(rules, other, timings)
    return doubt.merge(findings, second, ctx.knobs, other.knobs, names), other


def build_context(files: SubmissionFiles, options: Options, timings: Timings) -> Context:
    """Runs every stage before the rules. A stage that fails leaves a `Problem`."""
    assert files.primary is not None
    ctx = Context(files=files, primary=files.primary, options=options)
    with timings.stage("source"), _guard(ctx, "source"):
        program = _load(files, options)
        ctx.modules, ctx.sources, ctx.peeled = program.modules, program.sources, program.peeled
        ctx.problems += program.problems
    with timings.stage("evidence"), _guard(ctx, "evidence"):
        from audit.evidence import read_facts

        ctx.facts = Facts(read_facts(files))
    with timings.stage("knobs"), _guard(ctx, "knobs"):
        from audit.knobs import resolve

        defaults = ctx.peeled.env_defaults if ctx.peeled is not None else {}
        ctx.knobs = resolve(files, ctx.sources, dict(options.env), ctx.facts, defaults, ctx.modules)
    if ctx.module is not None:
        with timings.stage("trace"), _guard(ctx, "trace"):
            _trace(ctx, files)
            _find_headline(ctx)
    available = set()
    if ctx.module is not None:
        available.add("source")
    with _guard(ctx, "evidence"):
        # "log" stands for any paper that states figures: logs, submission.json, README tables.
        if len(ctx.facts) or files.logs():
            available.add("log")
    ctx.available = frozenset(available)
    return ctx


def _load(files: SubmissionFiles, options: Options) -> Program:
    """`load_program`; in a cold process of the command line on two cores, beside the import of the later stages.

    libcst alone takes a fifth of a short audit to import. What goes wrong in the child (it died, its result cannot
    be sent) goes wrong in this process again, with its reason.
    """
    from audit.source import load_program
    from audit.source.program import mount

    if options.limit_s is None or "libcst" in sys.modules or (os.cpu_count() or 1) < 2:
        return load_program(files)
    from audit.isolate import Started

    started = Started(lambda: load_program(files), options.limit_s)
    rule_modules()
    for later in ("audit.knobs", "audit.native", "audit.trace.headline", "audit.classify"):
        importlib.import_module(later)
    try:
        program = started.result()
    except Exception:
        return load_program(files)
    if program.unpacked:
        mount(files, program.unpacked)
    return program


def _runs_instead(ctx: Context) -> str | None:
    """Another file of the submission that the script executes and is nothing beside, None where there is none."""
    module = ctx.module
    if module is None or module.path == ctx.primary or module.path in ctx.modules or ctx.files is None:
        return None
    return module.path if ctx.files.read(module.path) is not None else None


def _trace(ctx: Context, files: SubmissionFiles) -> None:
    """Traces the program as configured; if that run scores nothing, under the first stated configuration that does."""
    from audit.knobs import alternatives
    from audit.trace import Trace, scores_any, trace

    natives = _natives(files, ctx)
    primary, modules = ctx.primary, ctx.modules
    if (beside := _runs_instead(ctx)) is not None:
        # What happens, happens in that file's lines.
        primary, modules = beside, {beside if key == primary else key: m for key, m in modules.items()}

    def run(knobs: Any, must_score: bool = False) -> Trace:
        return trace(modules, primary, knobs, ctx.options.budget_s, natives=natives, must_score=must_score)

    ctx.trace = run(ctx.knobs)
    if scores_any(ctx.trace) or not any(e.on_val for e in ctx.trace.of("SCORE")):
        return
    for knobs in alternatives(ctx.knobs) if ctx.knobs is not None else ():
        other = run(knobs, must_score=True)
        if scores_any(other):
            ctx.trace, ctx.knobs = other, knobs
            return


#: bits per byte by which a printed figure has to beat the stated one to be another claim, not the same in fewer digits
LEAST_GAIN = 2e-4
#: a stated score below this share of all that are printed is that of another evaluation, and no difference of scores
UNSEEN, LEAST_SCORE = 0.9, 0.05
#: bits per byte; the accepted records state 1.058 and more
SEEN = 1.0


def _find_headline(ctx: Context) -> None:
    """Tells the trace which of its reports is the stated score, where a log prints that.

    Whoever overrides a setting asks about another run than the one that the log is of.
    """
    if ctx.options.env:
        return
    from audit.rules.papers import evidence
    from audit.trace.headline import narrow, set_aside

    assert ctx.trace is not None
    found = evidence(ctx)
    behind = [run for run in found.behind if run.link == "score" and run.reported]
    printed = [e.bpb.value for run in found.runs for e in run.evaluations]
    # The score itself: under that name in the metadata, or in a README's title; others are of other evaluations.
    stated_first = [float(f.value) for f in found.paper("val_bpb", "") if f.label == "val_bpb" or f.line <= 3]
    if any(LEAST_SCORE < value < UNSEEN * min(printed, default=0.0) for value in stated_first):
        return  # a better score is stated than any line shows: nothing is ruled out
    if not found.runs and not found.paper("val_bpb"):
        set_aside(ctx.trace)
        return
    labels = {e.label for run in behind for e in run.reported}
    stated = {x: max(sum(e.label == x for e in run.evaluations) for run in behind) for x in sorted(labels)}
    better: dict[str, Fact] = {}
    for run in behind:
        for e in run.evaluations:
            if e.bpb.value < min(run.reported[-1].bpb.value - LEAST_GAIN, better[e.label].value if e.label in better else 1e9):
                better[e.label] = e.bpb
    # That another program printed a score is held against it only where no accepted record comes near the score.
    beyond = min((run.reported[-1].bpb.value for run in behind), default=SEEN) < SEEN
    narrow(ctx.trace, stated, {k: v for k, v in better.items() if k not in labels}, partial(_written, ctx), partial(_printable, ctx) if beyond else lambda _: True)


def _printable(ctx: Context, text: str) -> bool:
    """Could the program, or another script that lies beside it, print a log line that begins so."""
    from audit.trace.printed import could_be_printed

    if could_be_printed(text, ctx.modules.values()):
        return True
    word = max(re.findall(r"[A-Za-z_]+", text), key=len, default="")
    assert ctx.files is not None
    beside = ctx.files.anywhere(".py", ".sh", ".ipynb", ".c", ".cpp")
    others = (ctx.files.read(path) or b"" for path in beside if path != ctx.primary)
    return len(word) < LEAST_LABEL or any(word.encode() in data for data in others)


def _written(ctx: Context, text: str) -> str | None:
    """Where a statement of the program holds what a log line says before its figure."""
    text = text.strip()
    if len(text) < LEAST_LABEL:
        return None  # a word of a table ("Mean"), which may stand anywhere
    for path, module in ctx.modules.items():
        for n, line in enumerate(module.lines, 1):
            if text in line and not line.lstrip().startswith("#"):
                return f"{path}:{n}"
    return None


def _natives(files: SubmissionFiles, ctx: Context) -> list[Any]:
    """What the compiled helpers do: C files of the submission and C text in its modules."""
    from audit.native import SUFFIXES, read_native

    texts = {}
    for path in files.anywhere(*SUFFIXES):
        if (data := files.read(path)) is not None:
            texts[path] = data.decode("utf-8", "replace")
    return read_native(texts, ctx.modules.values())


@contextmanager
def _guard(ctx: Context, stage: str) -> Iterator[None]:
    """A stage that breaks on hostile input is a finding about the audit, not its end."""
    try:
        yield
    except InputError:
        raise
    except (Exception, RecursionError) as error:
        reason = f"{stage}: {where_it_broke(error)}"
        ctx.problems.append(Problem(kind="internal", path=ctx.primary, line=0, reason=reason))


def where_it_broke(error: BaseException) -> str:
    """The error and the innermost place in one line: what a bug report needs and a report can show."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    said = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}{': ' if said else ''}{said}{at}"


def _rules(options: Options) -> list[Rule]:
    rules = in_force((module.RULE for module in rule_modules().values()), options.ruleset)
    if options.rules is None:
        return rules
    return [rule for rule in rules if rule.id in options.rules]


def run_rules(
    rules: Iterable[Rule], ctx: Context, timings: Timings
) -> tuple[dict[str, list[Finding]], dict[str, list[Obligation]]]:
    """Every rule's findings and stated obligations, by rule id."""
    findings: dict[str, list[Finding]] = {}
    obligations: dict[str, list[Obligation]] = {}
    for rule in rules:
        found: list[Finding] = []
        stated: list[Obligation] = []
        findings[rule.id], obligations[rule.id] = found, stated
        if (why := missing_input(rule, ctx.available)) is not None and not rule.id.startswith("S"):
            stated.append(Obligation(rule=rule.id, status="not-applicable", reason=why))
            continue
        start = time.perf_counter()
        try:
            for item in rule_modules()[rule.id].check(ctx):
                (found if isinstance(item, Finding) else stated).append(item)
        except (Exception, RecursionError) as error:
            stated.append(
                Obligation(
                    rule=rule.id, status="undetermined", reason=f"the check failed: {where_it_broke(error)}"
                )
            )
        timings.rules[rule.id] = timings.rules.get(rule.id, 0.0) + time.perf_counter() - start
    return findings, obligations


def _conclude(
    submission: Submission,
    rules: list[Rule],
    found: dict[str, list[Finding]],
    stated: dict[str, list[Obligation]],
    ctx: Context,
) -> None:
    options = ctx.options
    # A wrapper's findings lie in the file that it unpacked.
    texts_at = ctx.sources | {
        m.path: ctx.sources[key] for key, m in ctx.modules.items() if key in ctx.sources
    }
    if _runs_instead(ctx) is not None:
        texts_at[ctx.primary] = ctx.files.text(ctx.primary) or ""
    lines = {path: text.splitlines() for path, text in texts_at.items()}

    def source_line(path: str, number: int) -> str | None:
        if path not in lines:
            data = ctx.files.read(path) if ctx.files is not None else None
            lines[path] = data.decode("utf-8", "replace").splitlines() if data else []
        text = lines[path]
        return text[number - 1] if 0 < number <= len(text) else None

    weighed = [weigh(rule, f, options.policy) for rule in rules for f in found[rule.id]]
    if not options.ignore_suppressions:
        weighed = suppress.apply(weighed, texts_at)
    weighed = with_columns([_better_figure(f, ctx) for f in weighed], source_line)
    bodies = {m.path: m.body for m in ctx.modules.values()}
    weighed = [
        replace(f, function=ir.scope_at(bodies.get(f.path, []), f.line), settings=_settings(f, ctx)) for f in weighed
    ]
    if options.baseline:
        submission.excerpts = excerpts(weighed, (), (), source_line)
        weighed = baseline.apply(weighed, options.baseline, submission)
    by_rule: dict[str, list[Finding]] = {}
    for finding in weighed:
        by_rule.setdefault(finding.rule, []).append(finding)
    submission.obligations = [settle(r, by_rule.get(r.id, []), stated[r.id]) for r in rules]
    if broken := [problem.reason for problem in ctx.problems if problem.kind == "internal"]:
        # What a failed stage would have said is unread, just as an opaque payload is.
        submission.obligations = [
            o for o in submission.obligations if o.rule != "S1" or o.status == "undetermined"
        ]
        submission.obligations += [
            Obligation(rule="S1", status="undetermined", reason=f"a stage of the audit failed: {reason}")
            for reason in broken
        ]
    if options.warn:
        from audit.remarks import remarks

        for line in dict.fromkeys(remarks(ctx, texts_at)):
            say(f"warning: {submission.target}: {line}")
    named = ctx.files.paths if ctx.files is not None else ()
    submission.excerpts = excerpts(weighed, submission.obligations, {*texts_at, *named}, source_line)
    if ctx.files is not None:
        from audit.packed import packed_places

        submission.packed = packed_places(ctx, texts_at, [ctx.primary, *submission.excerpts])
    rank = {"violation": 0, "warning": 1, "note": 2}
    submission.findings = sorted(weighed, key=lambda f: (f.suppressed is not None, rank[f.severity]))
    submission.facts = list(ctx.facts)
    submission.record_ready = _record_ready(rules, by_rule, submission.obligations)
    submission.verdict, submission.reason = decide(
        rules, submission.findings, submission.obligations, ctx.available, options.policy
    )


def _better_figure(finding: Finding, ctx: Context) -> Finding:
    """Says of what counts only because the run printed a better figure than the stated one which figure that is."""
    from audit.trace.headline import put_forward

    if ctx.trace is None or finding.severity == "note" or finding.active == "no" or finding.basis != "source":
        return finding
    figure = put_forward(ctx.trace, finding.path, finding.line, [(s.path, s.line) for s in finding.trace])
    if figure is None:
        return finding
    folder = ctx.files.folder + "/" if ctx.files is not None and ctx.files.folder else ""
    printed = figure.raw or figure.value
    said = f"the headline does not rest on it, but {figure.path.removeprefix(folder)}:{figure.line} prints {printed}, which is better"
    step = Step(path=figure.path, line=figure.line, message=f"prints {printed}, better than the stated score")
    return replace(finding, message=f"{finding.message}; {said}", trace=(*finding.trace, step))


def _settings(finding: Finding, ctx: Context) -> tuple[str, ...]:
    """Where the settings come from that the finding hangs on; a gate in doubt names its places itself."""
    from audit.knobs.origins import origins

    if not finding.gate or finding.active == "unknown" or ctx.knobs is None or ctx.files is None:
        return ()
    return tuple(origins(finding.gate, ctx.knobs, ctx.files.folder))


def _classify(submission: Submission, ctx: Context, other: Context | None = None) -> None:
    """What kind of test-time training and of cache the submission contains; unknown without a trace.

    With a second reading (`_other_reading`), what is active under one of the two only is ``unknown``.
    """
    from audit import classify

    if ctx.trace is None:
        submission.ttt = {"kind": "none", "active": "unknown"}
        submission.cache = {"kind": "none", "active": "unknown"}
        return
    for name, classified in (("ttt", classify.ttt), ("cache", classify.cache)):
        kind, active = classified(ctx.trace)
        if other is not None:
            its_kind, its_active = classified(other.trace)
            if (active == "yes") != (its_active == "yes"):
                kind, active = (kind if active == "yes" else its_kind), "unknown"
        setattr(submission, name, {"kind": kind, "active": active})


def _record_ready(
    rules: Iterable[Rule], findings: dict[str, list[Finding]], obligations: Iterable[Obligation]
) -> dict[str, Any]:
    """What keeps the submission from being recorded; never part of the verdict."""
    evidence = {rule.id for rule in rules if rule.illegal == "NOT-READY"}
    missing = [
        f"{f.rule}: {f.message}"
        for rule_id in sorted(evidence)
        for f in findings.get(rule_id, [])
        if f.severity != "note" and f.suppressed is None
    ]
    said = {line.split(":")[0] for line in missing}
    missing += [
        f"{o.rule}: {o.reason}"
        for o in obligations
        if o.rule in evidence and o.rule not in said and o.status != "holds"
    ]
    return {"ready": not missing and bool(evidence), "missing": missing}
