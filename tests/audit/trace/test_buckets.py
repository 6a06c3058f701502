"""Windows sorted into chunks by a place: where their scored part begins, or where they end."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

SCRIPT = """\
SEQ, STRIDE, CHUNK = 1024, int(os.environ.get("EVAL_STRIDE", 64)), int(os.environ.get("TTT_CHUNK_TOKENS", 32768))
def adapted(net, tokens):
    last = tokens.numel() - 1
    starts = [ws for ws in range(0, last, STRIDE) if ws == 0 or ws + SEQ - STRIDE < last]
    num_chunks = (last + CHUNK - 1) // CHUNK
    windows = [[] for _ in range(num_chunks)]
    for ws in starts:
        end = min(ws + SEQ, last)
        s = 0 if ws == 0 else SEQ - STRIDE
        first = ws + s
        ci = @@
        windows[ci].append((ws, end))
    opt = torch.optim.SGD(net.parameters(), lr=1e-3)
    total = torch.zeros((), dtype=torch.float64)
    for ci in range(num_chunks):
        with torch.no_grad():
            for ws, end in windows[ci]:
                w = tokens[ws : end + 1]
                s = 0 if ws == 0 else SEQ - STRIDE
                total += nll(net, w[None, :-1], w[None, 1:])[0, s:].double().sum()
        begin, stop = ci * CHUNK, min((ci + 1) * CHUNK, last)
##
    return total
total = adapted(model, val)
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
ON_THE_CHUNK = """\
        for a in range(begin, stop, SEQ):
            b = min(a + SEQ, stop)
            opt.zero_grad()
            nll(net, tokens[None, a:b], tokens[None, a + 1 : b + 1]).mean().backward()
            opt.step()
"""
ON_ITS_WINDOWS = """\
        for ws, end in windows[ci]:
            opt.zero_grad()
            nll(net, tokens[None, ws:end], tokens[None, ws + 1 : end + 1]).mean().backward()
            opt.step()
"""


def accused(by: str, learn: str = ON_THE_CHUNK) -> set[str]:
    body = PRELUDE + "import math\n" + SCRIPT.replace("@@", by).replace("##\n", learn)
    return {f.rule for f in audit_text(body).findings if f.severity == "violation" and f.active == "yes"}


@pytest.mark.parametrize(
    "by",
    [
        "min(first // CHUNK, num_chunks - 1)",
        "min((ws + s) // CHUNK, num_chunks - 1)",
        "min(ws // CHUNK, num_chunks - 1)",
        "ws // CHUNK",
        "min((end - 1) // CHUNK, num_chunks - 1)",  # all that it scores is past the chunk before, as chunks are whole strides
        "min((end - STRIDE) // CHUNK, num_chunks - 1)",
        "min(first // CHUNK, math.ceil(last / CHUNK) - 1)",
    ],
)
def test_a_window_that_goes_by_what_it_scores_first_is_scored_before_its_chunk_is_learned(by):
    assert not accused(by)


@pytest.mark.parametrize(
    "by",
    [
        "min(end // CHUNK, num_chunks - 1)",
        "min((ws + SEQ) // CHUNK, num_chunks - 1)",
        "min(end // CHUNK + 1, num_chunks - 1)",
        "min((ws + 2 * SEQ) // CHUNK, num_chunks - 1)",
        "min((ws + (end - ws) - 1) // CHUNK + 1, num_chunks - 1)",
        "min((first + CHUNK - 1) // CHUNK, num_chunks - 1)",
        "min(math.ceil(first / CHUNK), num_chunks - 1)",
        "min(-(-first // CHUNK), num_chunks - 1)",
    ],
)
def test_a_window_that_goes_by_its_end_is_scored_after(by):
    assert accused(by) == {"F2"}


def test_what_is_learned_from_the_windows_of_a_turn_ends_where_the_next_ones_begin_to_score():
    assert not accused("min(end // CHUNK, num_chunks - 1)", ON_ITS_WINDOWS)


BY_THE_FIRST, BY_THE_BEGINNING = "min(first // CHUNK, num_chunks - 1)", "min(ws // CHUNK, num_chunks - 1)"
OF_RANKS = """\
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        begin, stop = @@
        many = (stop - begin) // SEQ
        mine, end = many * rank // world, many * (rank + 1) // world
        for k in range(0, end - mine, 4):
            a, b = begin + (mine + k) * SEQ, begin + (mine + min(k + 4, end - mine)) * SEQ + 1
            rows = tokens[a:b].long()
            opt.zero_grad()
            nll(net, rows[:-1].reshape(-1, SEQ), rows[1:].reshape(-1, SEQ)).mean().backward()
            opt.step()
"""


def learn(chunk: str, how: str) -> str:
    return f"        begin, stop = {chunk}\n" + ON_THE_CHUNK if how == "all of it" else OF_RANKS.replace("@@", chunk)


@pytest.mark.parametrize("how", ["all of it", "a rank's share"])
@pytest.mark.parametrize("items", ["(ws, end)", "ws"])
@pytest.mark.parametrize(
    ("chunk", "by", "found"),
    [
        ("ci * CHUNK, min((ci + 1) * CHUNK, last)", BY_THE_FIRST, False),
        ("max(ci - 1, 0) * CHUNK, min((ci + 1) * CHUNK, last)", BY_THE_FIRST, False),
        ("ci * CHUNK + SEQ, min((ci + 1) * CHUNK, last)", BY_THE_FIRST, False),
        # What its windows end in was scored as well: they begin in the chunk.
        ("ci * CHUNK, min((ci + 1) * CHUNK, last)", BY_THE_BEGINNING, False),
        ("ci * CHUNK + CHUNK, min((ci + 1) * CHUNK + SEQ - STRIDE, last)", BY_THE_BEGINNING, False),
        ("(ci + 1) * CHUNK, min((ci + 2) * CHUNK, last)", BY_THE_FIRST, True),
        ("stop, min(stop + CHUNK, last)", BY_THE_FIRST, True),
        ("begin + CHUNK, begin + 2 * CHUNK", BY_THE_FIRST, True),
    ],
)
def test_the_next_chunk_is_not_learned_before_its_windows_are_scored(chunk, by, items, how, found):
    body = SCRIPT if items != "ws" else SCRIPT.replace("append((ws, end))", "append(ws)").replace(
        "for ws, end in windows[ci]:", "for ws in windows[ci]:\n                end = min(ws + SEQ, last)"
    )
    code = PRELUDE + body.replace("@@", by).replace("##\n", learn(chunk, how))
    assert {f.rule for f in audit_text(code).findings if f.severity == "violation"} == ({"F2"} if found else set())
