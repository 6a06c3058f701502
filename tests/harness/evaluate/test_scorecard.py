"""Scorecards: what the verifier finds, what a kill leaves, how a run continues."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audit.contracts import Exit, InputError
from harness.evaluate.stream import open_stream
from harness.scorecard.chain import EVENTS, SCORES
from harness.scorecard.statement import statement
from harness.scorecard.verify import verify
from harness.scorecard.writer import file_sha256, read_events


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def card(lab, tmp_path_factory):
    """A scorecard of 96 targets with adaptation: small enough to try every byte."""
    stream = open_stream(lab.data, lab.tokenizer, context=32, max_tokens=100)
    folder = tmp_path_factory.mktemp("card") / "card"
    lab.evaluation(ttt="sgd", stream=stream).run(folder)
    return folder


@pytest.fixture
def copy(card, tmp_path):
    return shutil.copytree(card, tmp_path / "copy")


def test_an_honest_scorecard_is_verified_and_its_figures_follow_from_the_files(card, lab):
    verdict = verify(card, artifact=lab.artifact, tokenizer=lab.tokenizer, data=lab.data)
    assert (verdict.problems, verdict.exit, verdict.complete) == ([], Exit.OK, True)
    nll = np.load(card / SCORES)
    tokens = lab.stream.tokens[:97]
    count = int(np.isin(tokens[1:], range(4, 260)).sum())
    assert verdict.summary()["bits_per_byte"] == pytest.approx(nll.sum(dtype=np.float64) / np.log(2) / count, rel=1e-12)
    assert {n: c["status"] for n, c in verdict.claims.items()} == {
        "P1": "shown", "P2": "shown", "P3": "shown", "P4": "not shown"}  # fmt: skip
    assert verdict.summary()["partial"] is True


@pytest.mark.parametrize("name", [EVENTS, SCORES])
def test_every_byte_counts(copy, name):
    data = bytearray((copy / name).read_bytes())
    places = range(len(data)) if name == SCORES else [*range(0, len(data), 7), *range(len(data) - 60, len(data))]
    rng = np.random.default_rng(0)
    for at in places:
        kept, data[at] = data[at], data[at] ^ int(rng.integers(1, 256))
        (copy / name).write_bytes(data)
        assert verify(copy).exit == Exit.VIOLATION, f"byte {at} of {name} changed unseen"
        data[at] = kept
    (copy / name).write_bytes(data)
    assert verify(copy).exit == Exit.OK


def test_scores_cut_short_or_lengthened_are_found(copy):
    data = (copy / SCORES).read_bytes()
    for changed in (data[:-1], data + b"\0", b""):
        (copy / SCORES).write_bytes(changed)
        assert verify(copy).exit == Exit.VIOLATION


def test_whatever_a_kill_leaves_of_the_record_is_incomplete_never_verified_never_accused(copy):
    data = (copy / EVENTS).read_bytes()
    for length in [*range(0, len(data), 97), *range(len(data) - 40, len(data))]:
        (copy / EVENTS).write_bytes(data[:length])
        verdict = verify(copy)
        assert verdict.exit == Exit.UNDETERMINED, f"cut at {length}: {verdict.problems}"
        assert not verdict.complete


@pytest.mark.parametrize("ttt", ["none", "sgd", "adamw", "lora", "phased"])
@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_run_continues_to_the_identical_result(lab, tmp_path, ttt, after, monkeypatch):
    more = {"snapshot_seconds": 0.0} if after == 3 else {}
    whole = lab.evaluation(ttt=ttt, **more).run(tmp_path / "whole")
    count = 0

    def kill(done, total, bpb):
        nonlocal count
        count += 1
        if count > after:
            raise Killed

    with pytest.raises(Killed):
        lab.evaluation(ttt=ttt, **more).run(tmp_path / "cut", progress=kill)
    assert verify(tmp_path / "cut").exit == Exit.UNDETERMINED
    # Half a line, as a kill during a write leaves it.
    with (tmp_path / "cut" / EVENTS).open("ab") as handle:
        handle.write(b'{"chunk":')
    result = lab.evaluation(ttt=ttt, **more).run(tmp_path / "cut", resume=True)
    assert file_sha256(tmp_path / "cut" / SCORES) == file_sha256(tmp_path / "whole" / SCORES)
    assert (result.nats, result.bytes, result.footer["state"]) == (whole.nats, whole.bytes, whole.footer["state"])
    assert verify(tmp_path / "cut", artifact=lab.artifact, tokenizer=lab.tokenizer, data=lab.data).exit == Exit.OK
    assert not (tmp_path / "cut" / "continue.pt").exists()


def test_a_run_killed_before_its_header_is_started_again_by_resume(lab, tmp_path):
    whole = lab.evaluation(ttt="sgd").run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for left in (b"", (tmp_path / "whole" / EVENTS).read_bytes()[:100]):
        (tmp_path / "cut" / EVENTS).write_bytes(left)
        result = lab.evaluation(ttt="sgd").run(tmp_path / "cut", resume=True)
        assert result.nats == whole.nats and verify(tmp_path / "cut").exit == Exit.OK


def test_probes_made_before_a_kill_still_count(lab, tmp_path):
    def kill(done, *_):
        if done >= 192:
            raise Killed

    whole = lab.evaluation(ttt="sgd").run(tmp_path / "whole")
    with pytest.raises(Killed):
        lab.evaluation(ttt="sgd").run(tmp_path / "cut", progress=kill)
    result = lab.evaluation(ttt="sgd").run(tmp_path / "cut", resume=True)
    assert result.claims["P2"]["status"] == "shown"
    windows = [sum(e["windows"] for e in read_events(r.out) if e["kind"] == "probe") for r in (whole, result)]
    assert windows[0] == windows[1] and f"{windows[1]} windows" in result.claims["P2"]["reason"]


@pytest.mark.parametrize("text", ["hello", "{}\n", '{"kind":"header"}\n'])
def test_a_foreign_file_is_no_incomplete_scorecard(tmp_path, text):
    (tmp_path / EVENTS).write_text(text)
    assert verify(tmp_path).exit == Exit.VIOLATION


def test_only_the_same_run_can_be_continued(lab, tmp_path):
    def kill(*_):
        raise Killed

    with pytest.raises(Killed):
        lab.evaluation(ttt="sgd").run(tmp_path / "cut", progress=kill)
    with pytest.raises(InputError, match="adaptation differs"):
        lab.evaluation(ttt="adamw").run(tmp_path / "cut", resume=True)
    with pytest.raises(InputError, match="--resume"):
        lab.evaluation(ttt="sgd").run(tmp_path / "cut")
    lab.evaluation(ttt="sgd").run(tmp_path / "cut", resume=True)
    with pytest.raises(InputError, match="complete"):
        lab.evaluation(ttt="sgd").run(tmp_path / "cut", resume=True)


def test_a_state_tampered_with_between_kill_and_continuation_is_refused(lab, tmp_path):
    def kill(done, *_):
        if done >= 192:
            raise Killed

    with pytest.raises(Killed):
        lab.evaluation(ttt="sgd").run(tmp_path / "cut", progress=kill)
    other = lab.evaluation(ttt="sgd")
    original = other.adaptation.adapt
    other.adaptation.adapt = lambda grant: (setattr(other.adaptation, "lr", 0.1), original(grant))
    with pytest.raises(InputError, match="another state"):
        other.run(tmp_path / "cut", resume=True)


def test_the_statement_names_the_files_and_what_was_found(card):
    made = statement(card, verify(card))
    assert made["_type"] == "https://in-toto.io/Statement/v1"
    digests = {s["name"]: s["digest"]["sha256"] for s in made["subject"]}
    assert digests[EVENTS] == file_sha256(card / EVENTS)
    assert digests[SCORES] == file_sha256(card / SCORES)
    assert made["predicate"]["result"]["head"] == read_events(card)[-1]["hash"]
    assert made["predicate"]["result"]["claims"]["P4"]["status"] == "not shown"


def test_the_verifier_needs_no_torch(card, lab):
    script = (
        "import sys\nsys.modules['torch'] = None\nfrom harness.cli import main\n"
        f"sys.exit(main(['verify', {str(card)!r}, '--artifact', {str(lab.artifact)!r}, '--data', {str(lab.data)!r},"
        f" '--tokenizer', {str(lab.tokenizer)!r}, '--format', 'json']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "referee.verify/1"


def test_where_there_is_no_scorecard_the_verifier_says_so(tmp_path):
    with pytest.raises(InputError, match="no scorecard here"):
        verify(tmp_path)


def test_documents_of_a_plan_are_checked_against_the_shards(lab, tmp_path):
    lab.evaluation(ttt="lora").run(tmp_path / "card")
    assert read_events(tmp_path / "card")[0]["plan"]["documents"] is True
    assert verify(tmp_path / "card", data=lab.data, tokenizer=lab.tokenizer).exit == Exit.OK


def test_the_ten_lines_in_the_documentation_check_a_scorecard(card, copy):
    page = (Path(__file__).resolve().parents[3] / "docs" / "proof.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    assert subprocess.run([sys.executable, "-c", code], cwd=card, check=False).returncode == 0
    nll = np.load(copy / SCORES, mmap_mode="r+")
    nll[3] += 0.5
    nll.flush()
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, check=False, capture_output=True)
    assert done.returncode == 1
