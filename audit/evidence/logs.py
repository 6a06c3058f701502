"""Reads training logs, in the contest's dialects, into facts.

A log is scanned block by block for a few dozen byte strings, and only lines that hold one are
parsed: progress lines make up nearly all of a log and say nothing that its last one does not.
Unknown lines are no error. A file may hold several runs one after another; each gets its own scope
(``path``, ``path#2``, …). Many logs begin with the script's own source: format strings have no
digits after their labels, so they do not match.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import IO

from audit.evidence.digits import value
from audit.model import Fact

BLOCK = 1 << 22
LONGEST_LINE = 4000
#: bytes; no artifact is as large as the validation text
MOST = 1e8

_N = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_LOSS = re.compile(rf"\b(?:val_loss|val loss|vl)\s*[:=]\s*({_N})", re.I)
_BPB = re.compile(rf"(?:\b(?:val_bpb|val bpb|bpb)|(?:\b|_)mix_bpb)\s*[:=]\s*({_N})", re.I)
_TIME = re.compile(rf"\b(?:eval_time|elapsed|total_time|time|t)\s*[:=]\s*({_N})\s*(ms|s|m)\b", re.I)
_STEP_LABEL = re.compile(r"(?:^|\b)(?:step|s|iter)?[: ]*(\d+)\s*/\s*\d+\b")
_PROGRESS = re.compile(r"running|chunk|batch|epoch|progress|windows|\btc\[|burst|doc[_ ]", re.I)
_CODE_LINE = re.compile(r"^\s*(?:#|\"|'|def |return |if |log0?\(|print\(|f\")|\{")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STAMP = re.compile(
    r"^(?:\[?\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?\]?\s*|\[?\d\d:\d\d:\d\d\]?\s*|\[?(?:rank ?)?\d+\]?: ?)+"
)
_KNOB = re.compile(r"^\s*([A-Za-z_]\w*)\s*:\s?(.*?)\s*$")
_BYTES = re.compile(
    rf"^(?P<label>[^:=\d][^:=]*?)\s*[:=]\s*~?(?P<n>{_N})\s*(?P<unit>bytes|B|MiB|MB|KB|KiB)?(?![\w/])"
)
_SHARDS = re.compile(r"\btrain_shards\s*[:=]\s*(\d+)(?!\s*/)\b")
_STOP = re.compile(rf"stopping_early:\s*(\S+)\s+train_time:\s*({_N})\s*ms\s+step:\s*(\d+)")
_TRAIN = re.compile(rf"\btrain_time:\s*({_N})\s*(ms|s|m)\b")
_AVG = re.compile(rf"\bstep_avg:\s*({_N})\s*ms")
_GATE = re.compile(r"\b(total|gated|token_gate|within_gate|word_gate|agree2plus)=(\d+)")
_WORDS = re.compile(
    r"\b(world_size|seed|grad_accum_steps|model_params|vocab_size|wall)\s*[:=]\s*([\d,]+)", re.I
)
_PARAMS = re.compile(
    r"(?:^|total |model[_ ]|num(?:ber of)?[_ ]|unique )param(?:eter)?s\s*[:=]\s*([\d,]{6,})", re.I
)
_TOKENIZER = re.compile(r"\btokenizer_path[=:]\s*(\S+)")
_DATASET = re.compile(r"\b(?:dataset|datasets_dir|data_path|train_files|shards pattern)[=:]\s*(\S+)")
_VAL_TOKENS = re.compile(
    r"(?:\bval_tokens|\beval_tokens|\bval_loader:.*?tokens|\bval tokens|\bvalidation tokens)\s*[:=]\s*([\d,]+)", re.I
)
_SUBSET = re.compile(r"\b(?:ppm_)?subset(?:_tokens)?\s*[:=]\s*(\d+)")
_SCORED = re.compile(r"\b(?:tokens_scored|scored_tokens|N_tokens)\s*[:=]\s*(\d+)")
_SCORED_BYTES = re.compile(
    r"\b(?:ppm_mix bytes|N_sidecar_bytes|total_bytes_scored|scored_bytes|val_bytes)\s*[:=]\s*(\d+)"
)
_TOTAL_IS = re.compile(r"\b((?:estimated|artifact|submission|packed|export)_total)=(\d{7,9})\b")
_HESSIAN = re.compile(rf"hessian\w*.*?\b(?:in|elapsed|time|took)\s*[:=]?\s*({_N})\s*(ms|s)\b", re.I)
_TOTAL_EVAL = re.compile(rf"\btotal_eval_time\s*[:=]\s*({_N})\s*(ms|s)?", re.I)
_COUNT_NAMES = {"wall": "wallclock_cap_s", "seed": "seed"}


def knob_line(line: str) -> tuple[str, str] | None:
    """``  ttt_enabled: True`` -> ("TTT_ENABLED", "True"): one line of a hyper-parameter dump."""
    match = _KNOB.match(line)
    return (match.group(1).upper(), match.group(2)) if match else None


def seconds(raw: str, suffix: str | None) -> float:
    scale = {"ms": 1e-3, "m": 60.0, None: 1.0}.get(suffix, 1.0)
    return value(raw) * scale


class _Reader:
    """The state of one file: which run the scan is in, and what it waits for."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.scope = path
        self.runs = 1
        self.line = 0
        self.ran = False  # something was trained or scored since the run began
        self.in_dump = False
        self.last_step: list[Fact] = []

    def fact(self, name: str, found: object, raw: str, label: str = "") -> Fact:
        return Fact(
            name=name, value=found, path=self.path, line=self.line, raw=raw, scope=self.scope, label=label
        )

    def begin(self) -> Iterator[Fact]:
        """A header line: the next run, unless the current one has not done anything yet."""
        if self.ran:
            yield from self.flush()
            self.runs += 1
            self.scope = f"{self.path}#{self.runs}"
            self.ran = False

    def flush(self) -> Iterator[Fact]:
        """The run's last progress line: its step count, time and mean step time."""
        yield from self.last_step
        self.last_step = []


def _evaluation(r: _Reader, text: str) -> Iterator[Fact]:
    """``<label> val_loss:… val_bpb:… eval_time:…``; the three facts share line and label."""
    bpb = _BPB.search(text)
    if bpb is None:
        return
    loss = _LOSS.search(text)
    first = min(m.start() for m in (bpb, loss) if m)
    label = _STAMP.sub("", text[:first]).strip(" :|-\t")
    if _CODE_LINE.search(text[:first]) or len(label) > 90:
        return
    step = _STEP_LABEL.match(label)
    if step:
        r.ran = True
        if int(step.group(1)) > 0:
            kept = [f for f in r.last_step if f.name not in {"step_val_bpb", "step_val_loss"}]
            kept.append(r.fact("step_val_bpb", value(bpb.group(1)), bpb.group(1), label))
            if loss:
                kept.append(r.fact("step_val_loss", value(loss.group(1)), loss.group(1), label))
            r.last_step = kept
        return
    if not label or _PROGRESS.search(label):
        # An epoch of training on validation text is worth a fact of its own (rule F1).
        if "prequant" in label.replace("_", "").replace("-", "").lower():
            yield r.fact("prequant_epoch_bpb", value(bpb.group(1)), bpb.group(1), label)
        return
    r.ran = True
    if loss:
        yield r.fact("val_loss", value(loss.group(1)), loss.group(1), label)
    yield r.fact("val_bpb", value(bpb.group(1)), bpb.group(1), label)
    if time := _TIME.search(text, first):
        yield r.fact("eval_time_s", seconds(time.group(1), time.group(2).lower()), time.group(1), label)


def _sizes(r: _Reader, text: str) -> Iterator[Fact]:
    for part in _STAMP.sub("", text).split("|")[:8]:
        yield from _size(r, part.strip())


def _size(r: _Reader, text: str) -> Iterator[Fact]:
    match = _BYTES.match(text)
    if match is None or re.match(r"\s*param", text[match.end() :]):
        return
    label, raw, suffix = match.group("label").strip(), match.group("n"), match.group("unit")
    low = label.lower()
    scale = {"MB": 1e6, "MiB": 2**20, "KB": 1e3, "KiB": 2**10}.get(suffix or "", 1.0)
    if suffix is None and (value(raw) < 1000 or low == "total"):
        return
    if low == "total_bytes" and value(raw) > MOST:
        return  # of the validation text
    if ("code" in low and "size" in low) or low.startswith("code bytes"):
        name = "bytes_code"
    elif "headroom" in low or "margin" in low or "limit" in low or "cap" in low.split() or "budget" in low or "target" in low or "param" in low:
        return
    elif "total" in low or "submission" in low or low.startswith("artifact"):
        name = "bytes_total"
    elif low.startswith("serialized") or "compressed" in low or "model" in low:
        name = "bytes_model"
    else:
        return
    yield r.fact(name, value(raw) * scale, f"{raw} {suffix}" if suffix else raw, label)


def _total_is(r: _Reader, text: str) -> Iterator[Fact]:
    """``storage_pass estimated_total=15919760``"""
    if match := _TOTAL_IS.search(text):
        yield r.fact("bytes_total", int(match.group(2)), match.group(2), match.group(1))


def _shards(r: _Reader, text: str) -> Iterator[Fact]:
    if match := _SHARDS.search(text):
        yield r.fact("train_shards", int(match.group(1)), match.group(1))
    if match := _DATASET.search(text):
        yield r.fact("dataset", match.group(1), match.group(1))


def _val_tokens(r: _Reader, text: str) -> Iterator[Fact]:
    if (match := _VAL_TOKENS.search(text)) and not _CODE_LINE.search(text[: match.start()]):
        found = int(match.group(1).replace(",", "") or 0)
        if found:
            yield r.fact("val_tokens", found, match.group(1))
    if match := _DATASET.search(text):
        yield r.fact("dataset", match.group(1), match.group(1))


def _stop(r: _Reader, text: str) -> Iterator[Fact]:
    if match := _STOP.search(text):
        r.ran = True
        yield r.fact("stop_reason", match.group(1), match.group(1))
        yield r.fact("train_time_s", value(match.group(2)) / 1e3, match.group(2), "stopping_early")
        yield r.fact("steps", int(match.group(3)), match.group(3), "stopping_early")


def _progress(r: _Reader, text: str) -> Iterator[Fact]:
    """Kept as the run's last progress line until the run ends."""
    time, step = _TRAIN.search(text), _STEP_LABEL.search(text)
    if not (time and step) or "warmup" in text:
        return iter(())
    r.ran = True
    kept = [f for f in r.last_step if f.name in {"step_val_bpb", "step_val_loss"}]
    kept.append(r.fact("last_step", int(step.group(1)), step.group(1)))
    kept.append(
        r.fact("last_train_time_s", seconds(time.group(1), time.group(2)), time.group(1), time.group(2))
    )
    if avg := _AVG.search(text):
        kept.append(r.fact("step_avg_ms", value(avg.group(1)), avg.group(1)))
    r.last_step = kept
    return iter(())


def _counts(r: _Reader, text: str) -> Iterator[Fact]:
    if _CODE_LINE.search(text):
        return
    names = {m.group(1).lower() for m in _WORDS.finditer(text)}
    if "model_params" in names:
        yield from r.begin()
    for match in _WORDS.finditer(text):
        name = match.group(1).lower()
        digits = match.group(2).rstrip(",")
        if digits:
            yield r.fact(_COUNT_NAMES.get(name, name), int(digits.replace(",", "")), digits)
    if "model_params" not in names and (found := _PARAMS.search(text)):
        yield r.fact("model_params", int(found.group(1).replace(",", "")), found.group(1))


def _gate(r: _Reader, text: str) -> Iterator[Fact]:
    for match in _GATE.finditer(text):
        yield r.fact(f"hint_{match.group(1)}", int(match.group(2)), match.group(0))


def _precompute(r: _Reader, text: str) -> Iterator[Fact]:
    time = _TIME.search(text)
    if time and "done" in text:
        where = "outside" if "outside" in text else "inside"
        yield r.fact("precompute_s", seconds(time.group(1), time.group(2).lower()), time.group(1), where)


def _hessian(r: _Reader, text: str) -> Iterator[Fact]:
    if (match := _HESSIAN.search(text)) and not _CODE_LINE.search(text[: match.start()]):
        yield r.fact("hessian_s", seconds(match.group(1), match.group(2).lower()), match.group(1))


def _total_eval(r: _Reader, text: str) -> Iterator[Fact]:
    if match := _TOTAL_EVAL.search(text):
        yield r.fact("total_eval_time_s", seconds(match.group(1), match.group(2)), match.group(1))


def _tokenizer(r: _Reader, text: str) -> Iterator[Fact]:
    if match := _TOKENIZER.search(text):
        yield r.fact("tokenizer_path", match.group(1), match.group(1))


def _scored(r: _Reader, text: str) -> Iterator[Fact]:
    for name, pattern in (
        ("subset_tokens", _SUBSET),
        ("scored_tokens", _SCORED),
        ("scored_bytes", _SCORED_BYTES),
    ):
        if match := pattern.search(text):
            yield r.fact(name, int(match.group(1)), match.group(1), text[:60].strip())


Handler = Callable[[_Reader, str], Iterator[Fact]]
#: Every line with one of these byte strings is parsed by the handler.
EVERY: dict[bytes, Handler] = {
    b"val_bpb": _evaluation, b" bpb:": _evaluation, b"mix_bpb": _evaluation, b"ubmission": _sizes, b"erialized": _sizes,
    b"ode size": _sizes, b"rtifact": _sizes, b"otal size": _sizes, b"total_bytes": _sizes, b"total:": _sizes,
    b"train_shards": _shards, b"val_tokens": _val_tokens, b"eval_tokens": _val_tokens, b"val_loader": _val_tokens,
    b"al tokens": _val_tokens, b"alidation tokens": _val_tokens, b"stopping_early": _stop,
    b"model_params": _counts, b"seed:": _counts, b"seed=": _counts, b"Seed:": _counts, b"SEED=": _counts,
    b"_total=": _total_is, b"world_size:": _counts, b"arams:": _counts, b"hints total": _gate, b"precompute": _precompute,
    b"essian": _hessian, b"total_eval_time": _total_eval, b"tokenizer_path": _tokenizer,
    b"subset": _scored, b"tokens_scored": _scored, b"ppm_mix bytes": _scored, b"N_tokens": _scored,
}  # fmt: skip
#: Progress lines: only the last one of a run counts.
LAST: dict[bytes, Handler] = {b"train_time:": _progress}
_DUMP = b"Hyperparameters:"


def _blocks(data: bytes | IO[bytes]) -> Iterator[bytes]:
    """Blocks that end at a line's end. UTF-16 files (Windows redirection) are converted first."""
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    head = stream.read(BLOCK)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        stream = io.BytesIO((head + stream.read()).decode("utf-16", "replace").encode())
        head = stream.read(BLOCK)
    rest = b""
    while head:
        block = rest + head
        cut = block.rfind(b"\n") + 1
        if cut == 0 and len(block) < 16 * BLOCK:
            rest = block
        else:
            yield block[: cut or len(block)]
            rest = block[cut:] if cut else b""
        head = stream.read(BLOCK)
    if rest:
        yield rest


def _candidates(block: bytes) -> dict[int, list[Handler]]:
    """Line starts worth parsing, with what to parse there."""
    found: dict[int, list[Handler]] = {}
    for key, handler in EVERY.items():
        at = block.find(key)
        while at >= 0:
            start = block.rfind(b"\n", 0, at) + 1
            handlers = found.setdefault(start, [])
            if handler not in handlers:
                handlers.append(handler)
            end = block.find(b"\n", at)
            at = block.find(key, end) if end >= 0 else -1
    at = block.find(_DUMP)
    while at >= 0:
        found.setdefault(block.rfind(b"\n", 0, at) + 1, []).insert(0, _start_dump)
        at = block.find(_DUMP, at + 1)
    # A progress line matters where something else follows it: before a stop, a score, or the end.
    for key, handler in LAST.items():
        borders = [
            start for start, handlers in found.items() if _start_dump in handlers or _counts in handlers
        ]
        for border in [*borders, len(block)]:
            at = block.rfind(key, 0, border)
            if at >= 0:
                found.setdefault(block.rfind(b"\n", 0, at) + 1, []).append(handler)
    return found


def _start_dump(r: _Reader, text: str) -> Iterator[Fact]:
    if text.strip() == _DUMP.decode():
        yield from r.begin()
        r.in_dump = True


def _dump(r: _Reader, block: bytes, at: int) -> tuple[list[Fact], int]:
    """Knobs from ``at`` on, until a line is none."""
    facts: list[Fact] = []
    while at < len(block):
        end = block.find(b"\n", at)
        end = len(block) if end < 0 else end
        line = block[at : min(end, at + 400)].decode("utf-8", "replace")
        pair = knob_line(line) if line[:1] in " \t" else None
        if pair is None:
            r.in_dump = False
            break
        name, text = pair
        facts.append(r.fact(f"knob.{name}", text, text))
        if name == "SEED" and text.isdecimal():
            facts.append(r.fact("seed", int(text), text))
        elif name in {"WORLD_SIZE", "VOCAB_SIZE"} and text.isdecimal():
            facts.append(r.fact(name.lower(), int(text), text))
        elif name == "TOKENIZER_PATH" and text:
            facts.append(r.fact("tokenizer_path", text, text))
        elif name in {"DATASETS_DIR", "TRAIN_FILES", "DATA_PATH"} and text:
            facts.append(r.fact("dataset", text, text))
        r.line += 1
        at = end + 1
    return facts, at


def read_log(path: str, data: bytes | IO[bytes]) -> Iterator[Fact]:
    """Facts of one log, in order. ``data`` may be an open binary file: it is read in blocks."""
    r = _Reader(path)
    before = 0  # newlines in earlier blocks
    for block in _blocks(data):
        at = counted = 0
        line_at = before + 1
        if r.in_dump:
            r.line = line_at
            facts, at = _dump(r, block, 0)
            yield from facts
        for start, handlers in sorted(_candidates(block).items()):
            if start < at:
                continue
            line_at += block.count(b"\n", counted, start)
            counted = start
            end = block.find(b"\n", start)
            end = len(block) if end < 0 else end
            text = block[start : min(end, start + LONGEST_LINE)].decode("utf-8", "replace")
            if "\x1b" in text:
                text = _ANSI.sub("", text)
            text = text.rstrip("\r")
            r.line = line_at
            for handler in handlers:
                yield from handler(r, text)
            if r.in_dump:
                r.line = line_at + 1
                facts, at = _dump(r, block, end + 1)
                yield from facts
        before += block.count(b"\n")
    yield from r.flush()
