"""Threads that wait for a queue: what is put in there is dealt with at that place."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

LOGGER = """\
import queue, threading
class Log:
    def __init__(self):
        self._q = queue.{queue}()
        self._t = threading.Thread(target=self._work, daemon=False)
        self._t.start()
    def _work(self):
        while True:
            item = self._q.{take}
            if item is None:
                break
            console, text = item
            if console:
                print(text, flush=True)
    def say(self, text, console=True):
        self._q.{put}((console, text))
    def close(self):
        self._q.put(None)
        self._t.join()
log = Log()
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
{before}
log.say(f"val_bpb:{{evaluate(model, val):.4f}}"{more})
log.close()
"""
LEARNS = "opt.zero_grad(); nll(model, val[None, :1024], val[None, 1:1025]).mean().backward(); opt.step()"
SPELLED = [("SimpleQueue", "get()", "put"), ("Queue", "get(timeout=1.0)", "put_nowait"), ("Queue", "get_nowait()", "put")]


def rules(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + body).findings if f.severity == "violation"}


def shown(body: str, rule: str) -> str:
    return next(o.status for o in audit_text(PRELUDE + body).obligations if o.rule == rule)


@pytest.mark.parametrize(("queue", "take", "put"), SPELLED)
def test_what_a_loggers_thread_prints_is_printed(queue, take, put):
    fill = {"queue": queue, "take": take, "put": put, "more": ""}
    assert shown(LOGGER.format(before="", **fill), "F1") == "holds"
    assert "F1" in rules(LOGGER.format(before=LEARNS, **fill))


def test_a_line_that_the_thread_only_keeps_is_not_printed():
    body = LOGGER.format(before="", queue="Queue", take="get()", put="put", more=", console=False")
    assert shown(body, "F1") == "undetermined"


WORKER = """\
import queue, threading
jobs = queue.Queue()
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
def learn(a, b):
    opt.zero_grad()
    nll(model, val[None, a:b], val[None, a + 1 : b + 1]).mean().backward()
    opt.step()
def work():
    while True:
        job = jobs.get()
        if job is None:
            return
        learn(*job)
{make}
total, C, n = torch.zeros(()), 32768, val.numel() - 1
for c in range(0, n, C):
    e = min(c + C, n)
    {first}
    with torch.no_grad():
        total += nll(model, val[None, c:e], val[None, c + 1 : e + 1]).sum()
    {last}
jobs.put(None)
print(f"val_bpb:{{total.item() / 0.6931471805599453 / n_bytes:.4f}}")
"""
MADE = ["threading.Thread(target=work, daemon=True).start()", "t = threading.Thread(target=work)\nt.start()"]


@pytest.mark.parametrize("make", MADE)
def test_a_thread_learns_from_a_chunk_when_it_is_handed_over(make):
    give = "jobs.put((c, e)); jobs.join()"
    assert rules(WORKER.format(make=make, first="pass", last=give)) == set()
    assert "F2" in rules(WORKER.format(make=make, first=give, last="pass"))


def test_batches_that_a_thread_reads_ahead_are_taken_out_as_before():
    body = """\
import queue, threading
class Ahead:
    def __init__(self, tokens):
        self.q = queue.Queue(maxsize=4)
        threading.Thread(target=self.fill, args=(tokens,), daemon=True).start()
    def fill(self, tokens):
        i = 0
        while True:
            self.q.put((tokens[None, i : i + 64], tokens[None, i + 1 : i + 65]))
            i += 64
    def next(self):
        return self.q.get()
ahead = Ahead({tokens})
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for step in range(10):
    x, y = ahead.next()
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()
print(f"val_bpb:{{evaluate(model, val):.4f}}")
"""
    assert rules(body.format(tokens="train")) == set()
    assert rules(body.format(tokens="val")) & {"F1", "F2", "F15"}
