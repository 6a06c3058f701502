"""Compiled helpers: what depends on the token at the position it is written for."""

from __future__ import annotations

import pytest

from audit.lower import lower
from audit.native import read_native

LOOP = """
#include <stdint.h>
typedef struct {{ uint64_t hash; uint32_t length; uint16_t *best; uint32_t *times; uint32_t *all; }} state;
static int boundary(const uint8_t *table, uint16_t tok) {{ return table[tok]; }}
void run(state *st, const uint16_t *ids, int64_t n, const uint8_t *table, int32_t *hint, float *sure) {{
    for (int64_t i = 0; i < n; ++i) {{
        {body}
        st->best[st->hash & 1023] = ids[i];
        st->all[st->hash & 1023]++;
        st->hash = st->hash * 31 + ids[i];
    }}
}}
"""
READ = "hint[i] = st->best[st->hash & 1023]; sure[i] = (float)st->times[st->hash & 1023] / (float)st->all[st->hash & 1023];"


def _run(body: str):
    (made,) = [f for f in read_native({"h.c": LOOP.format(body=body)}, []) if f.name == "run"]
    return made, {o.name: o for o in made.outputs.values()}


LEAKS = {
    "a branch on the token": "if (!table[ids[i]]) { " + READ + " }",
    "a branch in a helper": "if (!boundary(table, ids[i])) { " + READ + " }",
    "an early continue": "if (table[ids[i]]) continue; " + READ,
    "the state learns first": "st->hash ^= ids[i]; " + READ,
    "an index made of it": "hint[i] = st->best[(st->hash ^ ids[i]) & 1023];",
    "an address that ends at it": "uint64_t k = 7; for (int64_t j = i - 4; j <= i; j++) k = k * 31 + ids[j]; hint[i] = st->best[k & 1023];",
    "an address counted back from it": "uint64_t k = 7; for (int b = 0; b < 4; b++) k = k * 31 + ids[i - b]; hint[i] = st->best[k & 1023];",
    "a later token": "if (!table[ids[i + 1]]) { " + READ + " }",
}
FREE = {
    "nothing looks at it": READ,
    "the token before": "if (i > 0 && !table[ids[i - 1]]) { " + READ + " }",
    "a copy of the token before": "uint16_t prev = i > 0 ? ids[i - 1] : 0; if (!boundary(table, prev)) { " + READ + " }",
    "an address that ends before it": "uint64_t k = 7; for (int64_t j = i - 4; j < i; j++) k = k * 31 + ids[j]; hint[i] = st->best[k & 1023];",
    "an address counted back from the one before": "uint64_t k = 7; for (int b = 0; b < 4; b++) k = k * 31 + ids[i - b - 1]; hint[i] = st->best[k & 1023];",
    "an error path": READ + " if (ids[i] > 50000) return;",
    "the other branch updates only": "if (st->length) { " + READ + " if (table[ids[i]]) { st->length = 0; } } else { hint[i] = -1; }",
}


@pytest.mark.parametrize("body", LEAKS.values(), ids=LEAKS.keys())
def test_outputs_that_look_at_their_own_token(body):
    made, outputs = _run(body)
    assert outputs["hint"].leak and outputs["hint"].why == "ids"
    assert made.hints


@pytest.mark.parametrize("body", FREE.values(), ids=FREE.keys())
def test_outputs_of_the_prefix_alone(body):
    made, outputs = _run(body)
    assert not outputs["hint"].leak, (outputs["hint"].leak, outputs["hint"].why)
    assert made.hints and outputs["hint"].cached


def test_an_address_is_told_from_a_condition():
    for name, body in LEAKS.items():
        _, outputs = _run(body)
        assert outputs["hint"].keyed is name.startswith(("an address", "an index", "the state")), name


def test_quotients_positions_and_lines():
    _, outputs = _run(READ)
    assert outputs["sure"].ratio and not outputs["hint"].ratio
    assert (outputs["hint"].index, outputs["sure"].index) == (4, 5)
    source = LOOP.format(body="if (!table[ids[i]]) { hint[i] = st->best[0]; }")
    (made,) = [f for f in read_native({"h.c": source}, []) if f.name == "run"]
    line = next(n for n, t in enumerate(source.splitlines(), 1) if "hint[i]" in t)
    assert next(iter(made.outputs.values())).leak == line


def test_positions_from_an_array_and_methods_of_a_class():
    source = """
#include <cstdint>
struct Mixer {
    uint64_t h_ = 0; int best_[1024]; const int64_t* tokens_ = nullptr; const uint8_t* edge_ = nullptr;
    static uint64_t key(const int64_t* t, int64_t p) { uint64_t h = 0; for (int k = 0; k < 4; k++) h ^= t[p - k - 1]; return h; }
    void look(bool edge, uint64_t k, int& out) { if (edge) { out = -1; return; } out = best_[k & 1023]; }
    void fill(const int64_t* pos, int n, int32_t* out) {
        for (int i = 0; i < n; i++) {
            int64_t p = pos[i];
            uint64_t k = key(tokens_, p);
            int hint;
            look(edge_[tokens_[%s]], k, hint);
            out[i] = hint;
            best_[k & 1023] = int(tokens_[p]);
        }
    }
};
extern "C" void mixer_fill(void* self, const int64_t* pos, int n, int32_t* out) { static_cast<Mixer*>(self)->fill(pos, n, out); }
"""
    for at, leaks in (("p - 1", False), ("p", True)):
        made = {f.name: f for f in read_native({"m.cpp": source % at}, [])}["mixer_fill"]
        assert bool(made.leaks) is leaks, at
        assert made.hints


def test_text_inside_python_and_a_loss_spread_over_bytes():
    module = lower(
        'import ctypes\n\nSOURCE = r"""\n#include <math.h>\n'
        "double mix(const long *ids, const double *nll, const int *size, long n) {\n"
        "    double sum = 0;\n    for (long i = 0; i < n; i++) {\n"
        "        double each = -nll[i] / (double)size[ids[i]];\n        sum -= log(0.5 * exp(each) + 0.5);\n    }\n"
        '    return sum;\n}\n"""\n',
        "a.py",
    )
    (made,) = read_native({}, [module])
    assert (made.name, made.path, made.line, made.spreads) == ("mix", "a.py", 5, [8])


@pytest.mark.parametrize("text", ["", "\0\1\2", "int f(" * 500, "void f() {" + "{" * 3000, "for (;;) { x[i] = 1; }"])
def test_what_is_no_c_gives_nothing(text):
    assert read_native({"x.c": text}, []) == []


GIVEN = """
#include <stdint.h>
void run(const uint16_t *ids, int64_t n, const uint8_t *edge, const float *nll, int32_t *table, int32_t *hint, float *sure) {{
    for (int64_t i = 2; i < n; ++i) {{
        uint32_t k = ((uint32_t)ids[i - 2] * 31u ^ (uint32_t)ids[i - 1]) & 1023;
        {body}
        {update}
    }}
}}
"""
UPDATE = "table[k] = (int32_t)ids[i] + 1;"
GIVES = "hint[i] = table[k] - 1; sure[i] = table[k] > 0 ? 0.7f : 0.0f;"


def _given(body: str, update: str = UPDATE):
    (made,) = [f for f in read_native({"h.c": GIVEN.format(body=body, update=update)}, []) if f.name == "run"]
    return made


@pytest.mark.parametrize(
    ("body", "doubt"),
    [
        ("const uint16_t tok = ids[i]; hint[i] = -1; if (table[k] > 0 && !edge[tok]) { " + GIVES + " }", False),
        ("hint[i] = table[k] - 1; sure[i] = table[k] > 0 && !edge[ids[i]] ? 0.7f : 0.0f;", False),
        ("hint[i] = -1; if (edge[ids[i]]) { table[k] = ids[i] + 1; continue; } " + GIVES, False),
        ("hint[i] = -1; if (table[k] - 1 == ids[i]) { " + GIVES + " }", True),
        ("hint[i] = table[k] - 1; sure[i] = table[k] - 1 == ids[i] ? 0.7f : 0.0f;", True),
    ],
)
def test_hints_from_a_table_of_the_callers(body, doubt):
    made = _given(body)
    assert made.leaks and made.hints
    assert all(o.doubt for o in made.leaks) is doubt


@pytest.mark.parametrize(
    ("body", "update"),
    [
        (GIVES, UPDATE),
        ("hint[i] = -1; if (!edge[ids[i - 1]]) { " + GIVES + " }", UPDATE),
        (GIVES, "if (!edge[ids[i]]) { " + UPDATE + " }"),
        (GIVES, "if (table[k] - 1 != ids[i]) { " + UPDATE + " } else { table[k ^ 7]++; }"),
        # the hint for the token after
        ("int hit = table[k] - 1 == ids[i];", UPDATE + " k = ((uint32_t)ids[i - 1] * 31u ^ (uint32_t)ids[i]) & 1023;"
         " hint[i] = table[k] - 1; sure[i] = hit ? 0.9f : 0.5f;"),
        ("", UPDATE + " if (!edge[ids[i]]) { hint[i + 1] = table[7] - 1; sure[i + 1] = 0.5f; }"),
        # a score, and a property of the token
        ("sure[i] = table[k] - 1 == ids[i] ? 0.5f * nll[i] : nll[i]; if (edge[ids[i]]) sure[i] += nll[i] * table[k];", UPDATE),
        ("hint[i] = edge[ids[i]];", UPDATE),
    ],
)  # fmt: skip
def test_what_gives_no_hint_away(body, update):
    assert not _given(body, update).leaks


HASHED = """
#include <stdint.h>
static uint64_t mixed(const int64_t *t, int n) {{
    uint64_t h = 1469;
    for (int i = 0; i < n; i++) h = (h ^ (uint64_t)t[i]) * 1099511;
    return h;
}}
typedef struct {{ uint64_t key; int32_t top; }} Slot;
static Slot slots[1 << 16];
int64_t run(const int64_t *tokens, int64_t n, int32_t k, const int32_t *sizes, int32_t levels, int32_t *hint) {{
    for (int64_t i = 1; i < n; i++) {{
        for (int lv = 0; lv < levels; lv++) {{
            uint64_t h = mixed({at});
            Slot *s = &slots[h & 65535];
            if (s->key == h) {{ hint[i] = s->top; break; }}
        }}
        slots[mixed(&tokens[i - k], k) & 65535].top = (int32_t)tokens[i];
    }}
    return 0;
}}
"""


@pytest.mark.parametrize(
    ("at", "leaks"),
    [
        ("&tokens[i - k], k", False),
        ("&tokens[i - sizes[lv]], sizes[lv]", False),
        ("&tokens[i - k], k + 1", True),
        ("&tokens[i], 1", True),
    ],
)
def test_a_hash_of_as_many_tokens_as_lie_before_the_position(at: str, leaks: bool):
    (made,) = [f for f in read_native({"h.c": HASHED.format(at=at)}, []) if f.name == "run"]
    assert bool(made.leaks) == leaks
