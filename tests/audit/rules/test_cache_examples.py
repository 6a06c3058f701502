"""The examples beside the cache and gate rules, and the kinds of cache that they contain."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.base import rule_modules

MINE = ("F4", "F7", "F8", "F9", "F10")
#: what each family of examples holds; F8 and F9 illegal ones are the hashed caches
KINDS = {
    ("F8", "ILLEGAL"): ["target-in-key", "target-in-key", "target-in-key"],
    ("F8", "LEGAL"): ["context-only", "input-embedding"],
    ("F7", "ILLEGAL"): ["other", "other", "none", "none", "none", "none"],
    ("F7", "LEGAL"): ["context-only", "context-only", "none", "none", "none"],
    ("F9", "ILLEGAL"): ["context-only", "none", "other", "context-only", "target-in-key"],
    ("F10", "ILLEGAL"): ["other", "other", "other"],
    ("F10", "LEGAL"): ["none", "context-only"],
    ("F4", "LEGAL"): ["none", "none"],
}


def _cases(which: str) -> list:
    return [
        pytest.param(rule, e, i, id=f"{rule}-{e.name}")
        for rule in MINE
        for i, e in enumerate(getattr(rule_modules()[rule], which))
    ]


def _audit(example):
    files = {"train_gpt.py": example.code, **dict(example.files)}
    return audit_files(text_files(files, "train_gpt.py"), Options())


@pytest.mark.parametrize(("rule", "example", "number"), _cases("ILLEGAL"))
def test_illegal_examples_fire_on_their_lines(rule, example, number):
    found = _audit(example)
    lines = {f.line for f in found.findings if f.rule == rule and f.active == "yes"}
    assert lines == set(example.lines), [(f.rule, f.line, f.message) for f in found.findings]
    assert found.verdict == "violation"
    if (rule, "ILLEGAL") in KINDS:
        kind = KINDS[rule, "ILLEGAL"][number]
        assert found.cache == {"kind": kind, "active": "no" if kind == "none" else "yes"}


@pytest.mark.parametrize(("rule", "example", "number"), _cases("LEGAL"))
def test_legal_examples_are_quiet(rule, example, number):
    found = _audit(example)
    assert [(f.rule, f.line) for f in found.findings if f.rule in MINE] == []
    assert found.verdict == "clean", found.reason
    if (rule, "LEGAL") in KINDS:
        assert found.cache["kind"] == KINDS[rule, "LEGAL"][number]


def _script(rule: str, which: str, number: int) -> str:
    return getattr(rule_modules()[rule], which)[number].code


def _of(code: str, **env: str):
    return audit_files(text_files({"train_gpt.py": code}, "train_gpt.py"), Options(env=env))


def test_names_decide_nothing():
    code = _script("F8", "ILLEGAL", 0)
    renamed = code
    for old, new in (("pairs", "legal"), ("contexts", "safe"), ("both", "ctx_key"), ("seen", "bigram"), ("stream", "train_ids")):
        renamed = renamed.replace(old, new)
    assert renamed != code
    assert [(f.rule, f.line) for f in _of(renamed).findings] == [(f.rule, f.line) for f in _of(code).findings]


def test_the_target_leaves_the_address_and_the_finding_goes():
    code = _script("F8", "ILLEGAL", 0)
    assert code.count("(seen ^ (stream[at] * 51647)) & MASK") == 1
    shifted = code.replace("(seen ^ (stream[at] * 51647)) & MASK", "(seen ^ (stream[at - 3] * 51647)) & MASK")
    found = _of(shifted)
    assert not [f for f in found.findings if f.rule == "F8"]
    assert found.cache["kind"] == "context-only"


def test_a_closed_knob_makes_it_a_note():
    code = _script("F8", "ILLEGAL", 0).replace(
        "    p = np.where(contexts[seen] > 1, 0.6 * p + 0.4 * q, p)\n",
        '    if int(os.environ.get("CACHE", "0")):\n        p = np.where(contexts[seen] > 1, 0.6 * p + 0.4 * q, p)\n',
    )
    closed, opened = _of(code), _of(code, CACHE="1")
    assert closed.verdict == "clean" and closed.cache == {"kind": "target-in-key", "active": "no"}
    assert {f.severity for f in closed.findings if f.rule == "F8"} == {"note"}
    assert opened.verdict == "violation" and opened.cache["active"] == "yes"


def test_a_threshold_that_no_probability_reaches_shuts_the_gate():
    code = """\
import ctypes, subprocess
SOURCE = r'''
#include <stdint.h>
static uint16_t best[65536]; static uint32_t times[65536], all[65536];
void hints(const uint16_t *stream, int64_t n, const uint8_t *starts, int32_t *out, float *sure) {
    uint32_t h = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint16_t tok = stream[i];
        sure[i] = 0.0f;
        if (!starts[tok]) {
            out[i] = best[h & 65535];
            sure[i] = (float)times[h & 65535] / (float)all[h & 65535];
        }
        best[h & 65535] = tok;
        times[h & 65535]++;
        all[h & 65535]++;
        h = h * 31 + tok;
    }
}
'''
open("h.c", "w").write(SOURCE)
lib = ctypes.CDLL("./h.so")
tokens = val.numpy().astype(np.uint16)
starts, out, sure = np.zeros(1024, dtype=np.uint8), np.zeros(len(tokens), dtype=np.int32), np.zeros(len(tokens), dtype=np.float32)
lib.hints(tokens.ctypes.data, len(tokens), starts.ctypes.data, out.ctypes.data, sure.ctypes.data)
gate = torch.from_numpy(sure >= float(os.environ.get("TAU", "0.5")))
hint = torch.where(gate, torch.from_numpy(out), -1).long()
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    h = hint[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = torch.softmax(model(x), -1)
    ph = p.gather(2, h.clamp(min=0)[..., None])[..., 0]
    tilted = p.gather(2, y[..., None])[..., 0] * torch.exp(2.0 * (h == y)) / (1 + ph * 6.389)
    total += -torch.log(tilted).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
    from audit.rules.flow import PRELUDE

    opened, shut = _of(PRELUDE + code), _of(PRELUDE + code, TAU="99")
    assert "F7" in {f.rule for f in opened.findings if f.severity == "violation"}
    assert shut.verdict == "clean", shut.reason
    assert {f.severity for f in shut.findings if f.rule == "F7"} <= {"note"}
