"""What a label names: one small vocabulary for JSON keys, table heads and row labels.

People write ``val_bpb``, ``Sliding BPB``, ``TTT bpp``, ``artifact_size_bytes``, ``Total submission``,
``ms/step`` …; all of them end here as a fact's name, a unit and a statistic. A label that speaks of
somebody else's figure, of a difference, or of a limit names nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from audit.evidence.digits import NUMBER, value

#: not a quantity of this submission: differences, limits, other people's runs
OTHER = re.compile(
    r"delta|δ|Δ|\bgain|improve|\bvs\b|versus|\bgap\b|_gap|baseline|\bprior|previous|\bsota\b|headroom|margin|\blimit|"
    r"\bcap\b|_cap\b|budget|threshold|impact|leaderboard|\btarget\b|reduction|reference|degradation|recover|cost|"
    r"comparison|\bold\b|frontier|parent|estimat|expected|projected|predict|welch|t_stat|p_value|saved|smoke|"
    r"overhead|attribution|ablation|beats?\b|upstream|\bbase (?:val|bpb|model)|merged|\bpr ?#|\bbest_known|\bgoal\b|slack|remaining|under",
    re.I,
)


def of_others(label: str) -> bool:
    """Does a label speak of somebody else's figure, of a difference, or of a limit."""
    plain = label.lower().replace("_", " ").replace("target tokens", "")
    return bool(OTHER.search(plain))


_STD = re.compile(r"(?<![a-z])std(?![a-z])|stdev|σ|standard deviation|±", re.I)
_MEAN = re.compile(r"mean|\bavg\b|average", re.I)
_STEP_TIME = re.compile(
    r"ms ?/ ?step|ms[_ ]per[_ ]step|step[_ ]avg|step[_ ]time|avg[_ ]step|time[_ ]per[_ ]step", re.I
)
_CLOCK = r"(?:time|wall\w*|wall[- ]clock|runtime|duration|seconds|secs?|ms|s)"
_EVAL_TIME = re.compile(
    rf"(?:eval\w*|ttt|slot|inference|n-?gram)(?:[_ ]\w+){{0,2}}[_ ]\(?{_CLOCK}(?:[_ )]|$)", re.I
)
_TRAIN_TIME = re.compile(
    rf"train(?:ing)?(?:[_ ](?:wall\w*|stop))?[_ ]\(?{_CLOCK}(?:[_ )]|$)|^wall[- _]?clock", re.I
)
_STEPS = re.compile(
    r"^(?:(?:train(?:ing)?|total|final|num|stop|optimi[sz]er|actual)[ _])?steps?(?:[ _](?:stop(?:ped)?|completed|reached|taken))?$|^stop[ _]step$",
    re.I,
)
_BYTES = re.compile(r"bytes|artifact|submission|\bsize\b|_size|\bmb\b|\bmib\b", re.I)
_NOT_BYTES = re.compile(
    r"ratio|payload|raw|per[_ ]|batch|vocab|chunk|model_size_params|context|window|block|step|tokens/|group|"
    r"uncompressed|unpacked|hash|path|name|sha|\bgpu|memory|val_bytes|bytes_?/|embed|calib|tokenizer|group|wrapper|patch|scored",
    re.I,
)
_UNIT = re.compile(r"(ms|min(?:utes?)?|sec(?:onds?|s)?|s|hours?|h|MiB|MB|KiB|KB|GB|bytes|byte|B|M|K)\b")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A fact's name, the label's own unit ("" if none) and statistic ("", "mean", "std", "max")."""

    name: str
    unit: str = ""
    statistic: str = ""


def quantity(label: str) -> Quantity | None:
    """What a JSON key, a table head or a row label names; None for what this submission does not state."""
    low = re.sub(r"[*`]", "", label).strip().lower()
    if not low or len(low) > 70 or of_others(low):
        return None
    statistic = "std" if _STD.search(low) else "max" if re.search(r"\bmax\b|_max|max_", low) else ""
    if not statistic and _MEAN.search(low) and not _STEP_TIME.search(low):
        statistic = "mean"
    unit = _label_unit(low)
    name = _name(low)
    return Quantity(name, unit, statistic) if name else None


def _name(low: str) -> str:
    if re.search(r"bpb|bpp\b|bits[ _/]per[ _]byte", low):
        return "" if re.search(r"train|tokens|bytes[ _/]per|per[ _]token", low) else "val_bpb"
    if _STEP_TIME.search(low):
        return "step_avg_ms"
    if re.search(r"val[_ ]?loss|val[_ ]nll|\bnats?\b|validation loss", low):
        return "val_loss"
    if re.search(r"val[_ ]tokens|target[_ ]tokens|validation tokens", low):
        return "val_tokens"
    if "train_shards" in low:
        return "train_shards"
    if _EVAL_TIME.search(low):
        return "eval_time_s"
    if _TRAIN_TIME.search(low):
        return "train_time_s"
    if _STEPS.match(low):
        return "steps"
    if _BYTES.search(low) and not _NOT_BYTES.search(low):
        if "code" in low or "script" in low:
            return "bytes_code"
        part = re.search(r"model|weights|quantized|blob|compressed", low) and not re.search(r"total_submission|submission_total", low)
        return "bytes_model" if part else "bytes_total"
    if re.fullmatch(
        r"(?:total |model |num_|n_)?(?:unique )?(?:model_)?param(?:eter)?s?(?:[ _]count|_total)?", low
    ):
        return "" if low in {"param", "parameter"} else "model_params"
    return ""


def _label_unit(low: str) -> str:
    if re.search(r"_ms\b|\bms\b(?! ?/)|\(ms\)", low):
        return "ms"
    if re.search(r"\bmib\b|_mib", low):
        return "MiB"
    if re.search(r"\bmb\b|_mb\b", low):
        return "MB"
    if re.search(r"\bkb\b|_kb\b", low):
        return "KB"
    if re.search(r"_min\b|\bminutes?\b", low):
        return "min"
    if re.search(r"seconds|_s\b|\(s\)|\bsecs?\b", low):
        return "s"
    return "bytes" if "bytes" in low else ""


_SCALE = {
    "MB": 1e6, "MiB": 2.0**20, "KB": 1e3, "KiB": 1024.0, "GB": 1e9, "M": 1e6, "K": 1e3,
    "ms": 1e-3, "min": 60.0, "minutes": 60.0, "minute": 60.0, "h": 3600.0, "hours": 3600.0, "hour": 3600.0,
}  # fmt: skip
_FITS = {"bytes_total": "size", "bytes_code": "size", "bytes_model": "size",
         "train_time_s": "time", "eval_time_s": "time", "model_params": "count", "steps": "count"}  # fmt: skip
_KIND = {"MB": "size", "MiB": "size", "KB": "size", "KiB": "size", "GB": "size", "bytes": "size", "byte": "size",
         "B": "size", "ms": "time", "s": "time", "min": "time", "h": "time", "M": "count", "K": "count"}  # fmt: skip
#: a number that is no part of a name ("P1")
_SPACED = re.compile(r"(?<![\w.,])\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?![\w.])")
_FREE = re.compile(rf"(?<![A-Za-z]){NUMBER.pattern}")
#: what a figure of that name can be at all
_RANGE = {
    "val_bpb": (1e-4, 20.0), "val_loss": (1e-3, 20.0), "val_tokens": (1000, 1e10), "step_avg_ms": (0.05, 1e6),
    "train_time_s": (1.0, 1e7), "eval_time_s": (0.01, 1e7), "steps": (1, 1e8), "bytes_total": (1000, 1e12),
    "bytes_code": (50, 1e8), "bytes_model": (1000, 1e12), "model_params": (1000, 1e11), "train_shards": (1, 1e5),
}  # fmt: skip


def measure(name: str, text: str, label_unit: str = "") -> tuple[float, str] | None:
    """The value of a cell for a quantity, in the fact's unit, and the text that it came from.

    The cell's own unit comes before the label's. None where the cell holds no such figure.
    ``raw`` keeps number, unit and a leading ``~``, so that its digits decide the interval.
    """
    text = re.sub(r"[*`]", "", text).strip()
    if re.match(r"^\(?[-−]\s?\d|^[<>≤≥+]", text):
        return None
    if name in _FITS or name == "val_tokens":
        text = _SPACED.sub(lambda m: re.sub(r"\s", ",", m.group()), text)
    match = _FREE.search(text)
    if match is None or match.start() > 14:
        return None
    try:
        number = value(match.group())
    except ValueError:
        return None
    found = _UNIT.match(text[match.end() :].lstrip(" "))
    unit = found.group(1) if found else ""
    unit = {"sec": "s", "secs": "s", "seconds": "s", "second": "s"}.get(unit, unit)
    kind = _FITS.get(name)
    if unit and kind and _KIND.get(unit, kind) != kind:
        return None
    if text[match.end() : match.end() + 1] == "%" or (
        kind is None and unit in _SCALE and name != "step_avg_ms"
    ):
        return None
    own = unit or label_unit
    if kind == "time" and not own and number > 5000:
        own = "ms"
    if kind == "size" and not unit and label_unit in {"", "bytes"} and number < 100 and name == "bytes_total":
        own = "MB"  # "15.95" under "artifact": nobody means bytes
    scale = _SCALE.get(own, 1.0) if name != "step_avg_ms" or own == "s" else 1.0
    if name == "step_avg_ms":
        scale = 1000.0 if unit == "s" else 1.0
    if name in {"val_bpb", "val_loss", "val_tokens", "train_shards"} or (
        kind == "count" and own not in {"M", "K"}
    ):
        scale = 1.0
    low, high = _RANGE[name]
    number *= scale
    if not low <= number <= high:
        return None
    about = "~" if re.search(r"[~≈]|about|approx|est\.?\b", text[: match.start()]) else ""
    return number, f"{about}{match.group()}{' ' + own if own else ''}"


def seed_of(text: str) -> int | None:
    """The seed that a key, a head or a cell names: ``42``, ``seed_42``, ``s1337``, ``**Seed 7** (x)``."""
    clean = re.sub(r"[*`]", "", str(text)).strip().lower()
    match = re.fullmatch(r"(?:seed[ _=:#]*|s)?((?!20\d{6}\b)\d{1,10})(?:\s*\(.*\))?(?:_result|_log)?", clean)
    return int(match.group(1)) if match else None
