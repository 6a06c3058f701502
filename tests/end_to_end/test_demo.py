"""The demo from end to end: figures move with the seed, one changed byte is rejected, the page stands in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from audit.contracts import InputError
from harness.demo.scripts import cases, drawn, fixture_root, rewritten
from harness.demo.state import State

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# A job started in the background ignores Ctrl-C; the demo under test must not.
PROGRAM = [
    sys.executable, "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from harness.cli import main; sys.exit(main())",
]  # fmt: skip


def demo(out, *words, seed=3):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        [*PROGRAM, "demo", "--out", str(out), "--fast", "--steps", "12", "--seed", str(seed), *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One demo that was interrupted in training, then run to its end."""
    out = tmp_path_factory.mktemp("demo") / "run"
    first = demo(out)
    seen = []
    for line in first.stdout:
        seen.append(line)
        if "training tokens" in line:
            break
    time.sleep(0.5)
    # As a terminal does it: the signal goes to the whole group.
    os.killpg(first.pid, signal.SIGINT)
    rest, _ = first.communicate(timeout=120)
    second = demo(out)
    text, _ = second.communicate(timeout=280)
    return out, first.returncode, "".join(seen) + rest, second.returncode, text


@pytest.mark.timeout(600)
def test_an_interrupted_demo_continues(finished):
    out, code, before, code2, text = finished
    assert code == 130, before
    assert "Traceback" not in before
    assert code2 == 0, text
    assert "continuing the demo" in text
    assert text.count("(done before)") >= 1
    assert (out / "report.html").is_file()


def test_the_table_says_what_was_measured(finished):
    out, _, _, _, text = finished
    document = json.loads((out / "result.json").read_text())
    for name in ("flat", "sliding", "ttt"):
        evaluation = document["evaluations"][name]
        assert f"{evaluation['bits_per_byte']:.4f}" in text
        assert evaluation["verified"] and not evaluation["partial"]
        assert evaluation["claims"]["P1"]["status"] == "shown"
    replayed = {n: e["claims"]["P4"]["status"] for n, e in document["evaluations"].items()}
    assert replayed == {"flat": "not shown", "sliding": "not shown", "ttt": "shown"}
    assert document["training"]["trained_bpb"] < document["training"]["untrained_bpb"]
    assert document["tamper"]["rejected"]
    assert document["artifact_bytes"] == (out / "model.art").stat().st_size
    kinds = {a["made"].split(":")[0] for a in document["audits"]}
    assert kinds == {"fixture", "preserve", "flip"}


def test_the_same_targets_are_scored_by_every_evaluation(finished):
    document = json.loads((finished[0] / "result.json").read_text())
    assert len({(e["targets"], e["bytes"]) for e in document["evaluations"].values()}) == 1


def test_a_saved_demo_is_rendered_again(finished, capsys):
    from harness.cli import main

    out = finished[0]
    assert main(["report", str(out / "result.json")]) == 0
    assert "bits per byte" in capsys.readouterr().out
    assert main(["report", str(out / "result.json"), "--format", "html", "-o", str(out / "again.html")]) == 0
    assert (out / "again.html").read_text().strip() == (out / "report.html").read_text().strip()
    assert main(["report", str(out / "ttt"), "--format", "html", "-o", str(out / "ttt.html")]) == 0
    assert "Time line" in (out / "ttt.html").read_text()


class Links(HTMLParser):
    """Collects everything a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "poster") and v and not v.startswith("#")]


def test_the_page_is_self_contained(finished):
    text = (finished[0] / "report.html").read_text()
    links = Links()
    links.feed(text)
    # A ruling may be linked for the reader; nothing may be loaded.
    assert [x for x in links.found if not x.startswith("https://github.com/")] == []
    assert "url(" not in text and "@import" not in text
    assert text.count("<svg") >= 3


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

CHECK = """<script>
addEventListener('load', () => {
  const svgs = [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect());
  const out = {
    width: document.documentElement.scrollWidth, window: innerWidth,
    svgs: svgs.filter(r => r.width > 200 && r.height > 60).length, all: svgs.length,
    bars: document.querySelectorAll('svg rect').length,
    lines: [...document.querySelectorAll('svg polyline')].filter(p => p.getTotalLength() > 50).length,
    shown: [...document.querySelectorAll('.badge')].filter(b => b.getClientRects().length).length,
    loaded: performance.getEntriesByType('resource').length,
  };
  document.title = JSON.stringify(out);
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_in_a_browser(finished, tmp_path, width):
    page = tmp_path / "page.html"
    text = (finished[0] / "report.html").read_text()
    page.write_text(text.replace("</body>", CHECK + "</body>"))
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-quic", f"--user-data-dir={tmp_path / 'profile'}",
         f"--window-size={width},900", "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, done.stdout[:300] + done.stderr[-500:]
    found = json.loads(title.group(1).replace("&quot;", '"'))
    assert found["svgs"] == found["all"] >= 3
    assert found["bars"] >= 4  # two chunks at least, each scored and adapted on
    assert found["lines"] >= 2
    assert found["shown"] >= 12
    assert found["loaded"] == 0
    assert found["width"] <= found["window"], "the page scrolls sideways"


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no demo"):
        State(tmp_path, {"data": None, "val_documents": 1}, fresh=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_other_options_start_clean_but_keep_the_data(tmp_path):
    options = {"data": None, "val_documents": 1, "seed": 0}
    state = State(tmp_path, options, fresh=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "model.art").write_bytes(b"x")
    state.ended("data", exit=0)
    state.ended("train", exit=0)
    assert set(State(tmp_path, options, fresh=False).stages) == {"data", "train"}
    other = State(tmp_path, {**options, "seed": 1}, fresh=False)
    assert set(other.stages) == {"data"}
    assert (tmp_path / "data").is_dir() and not (tmp_path / "model.art").exists()
    assert State(tmp_path, {**options, "val_documents": 2}, fresh=False).stages == {}
    assert not (tmp_path / "data").exists()


def test_the_seed_draws_the_scripts(tmp_path):
    verdicts = {c[0]: c[2] for c in cases(fixture_root())}
    sets = set()
    for seed in range(4):
        chosen = drawn(seed, 2, 4)
        assert [verdicts[s.name] for s in chosen] == ["clean"] * 2 + ["violation"] * 4
        sets.add(tuple(s.name for s in chosen))
    assert len(sets) > 1
    one = rewritten(5, 1, tmp_path / "a")
    two = rewritten(5, 1, tmp_path / "b")
    other = rewritten(6, 1, tmp_path / "c")
    text = lambda s: (s.path / "train_gpt.py").read_text()  # noqa: E731
    assert [text(s) for s in one] == [text(s) for s in two]
    assert [text(s) for s in one] != [text(s) for s in other]
