"""Probes: our own evaluator under them, the command, and what their silence is worth."""

import json

import pytest

from harness.cli import main
from harness.evaluate.causality import excluded
from harness.mutants.cases import subject_of
from harness.mutants.evaluators import Chunked, UpdateBeforeScore
from harness.probe.probes import Subject, probe, statement
from harness.probe.strict import Strict


@pytest.mark.parametrize("ttt", ["none", "sgd", "adamw"])
def test_our_own_evaluator_passes_the_probes_it_puts_to_others(lab, ttt):
    chosen = {} if ttt == "none" else {"freeze": 0, "lr": 0.05, "last": 0}
    subject = Subject(
        evaluator=Strict(ttt=ttt, chosen=chosen), model=lambda: lab.model(small=True), tokens=lab.stream.tokens[:161],
        target_bytes=lab.stream.target_bytes[:160], setting=lab.setting, probes=3, sums=1, ranks=False,
        tolerance=1e-5,  # a scorecard stores float32
    )  # fmt: skip
    assert [f.what for f in probe(subject)] == []
    assert set(subject.trials) == {"exactly-once", "sum", "bytes", "clock", "frozen-reference", "suffix-scramble", "target-flip",
                                   "normalisation", "batch-size"}  # fmt: skip


def test_n_silent_probes_exclude_what_binomial_arithmetic_says():
    assert excluded(0) == 1.0
    for n in (1, 10, 300):
        share = excluded(n)
        assert (1 - share) ** n == pytest.approx(0.05)
    assert excluded(299) < 0.01 < excluded(290)


def test_the_statement_names_every_probe_and_its_number(lab):
    subject = subject_of(Chunked(), lab)
    assert probe(subject) == []
    lines = statement(subject)
    assert len(lines) == len(subject.trials) == 10
    n = subject.trials["suffix-scramble"]
    assert any(line.startswith(f"suffix-scramble: {n} positions; a fault at more than {100 * excluded(n):.0f} %") for line in lines)


def test_an_evaluator_that_scores_too_few_is_reported_and_not_probed_further(lab):
    class Nothing(Chunked):
        def run(self):
            self.score(0)

    assert {f.mechanism for f in probe(subject_of(Nothing(), lab))} >= {"exactly-once", "bytes"}


EVALUATOR = """
from harness.mutants.evaluators import Chunked, UpdateBeforeScore
class Mine(UpdateBeforeScore):
    pass
honest = Chunked()
broken = 1 / 0 if False else None
"""


def command(lab, name, *more):
    # The laboratory's family has no registered builder, so the command is tried on a golf artifact elsewhere.
    return main(["probe", name, "--artifact", str(lab.artifact), "--data", str(lab.data), "--tokenizer", str(lab.tokenizer), *more])


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("magic", (), "name an evaluator as"),
        ("FILE:Mine", (), "say --trusted"),
        ("FILE:Missing", ("--trusted",), "cannot load it"),
        ("nowhere.py:Mine", ("--trusted",), "no such evaluator file"),
        ("strict", ("--set", "chunk"), "not KEY=VALUE"),
        ("strict", (), "no builder is registered"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(lab, tmp_path, capsys, name, more, message):
    file = tmp_path / "mine.py"
    file.write_text(EVALUATOR)
    assert command(lab, name.replace("FILE", str(file)), *more) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1


def test_the_command_probes_an_evaluator_from_a_file(lab, tmp_path, capsys, monkeypatch):
    from harness.mutants import lab as laboratory
    from harness.probe import session

    monkeypatch.setattr(session, "build_model", lambda opened: laboratory.build(opened.config, opened.arrays()))
    file = tmp_path / "mine.py"
    file.write_text(EVALUATOR)
    shape = ["--context", "32", "--stride", "8", "--chunk", "64", "--max-tokens", "161", "--sums", "0", "--trusted", "--format", "json"]
    assert command(lab, f"{file}:honest", *shape) == 0
    assert json.loads(capsys.readouterr().out)["fired"] == []
    assert command(lab, f"{file}:Mine", *shape) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "referee.probe/1"
    assert {f["mechanism"] for f in found["fired"]} >= {"suffix-scramble", "frozen-reference"}
    assert UpdateBeforeScore.__name__ not in json.dumps(found)


@pytest.mark.parametrize("form", ["text", "markdown", "html", "json"])
def test_saved_results_are_rendered_again(lab, tmp_path, capsys, form):
    lab.evaluation().run(tmp_path / "card")
    assert main(["verify", str(tmp_path / "card"), "--format", "json"]) == 0
    saved = tmp_path / "verdict.json"
    saved.write_text(capsys.readouterr().out)
    probed = {"schema": "referee.probe/1", "evaluator": "x <y>", "fired": [{"mechanism": "sum", "what": "no"}], "statement": ["s: 1"]}
    (tmp_path / "probe.json").write_text(json.dumps(probed))
    for path, word in ((saved, "P2"), (tmp_path / "probe.json", "sum")):
        assert main(["report", str(path), "--format", form]) == 0
        out = capsys.readouterr().out
        assert word in out and (form != "html" or "<y>" not in out)
    assert main(["report", str(saved), "--format", "sarif"]) == 2
