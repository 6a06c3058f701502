"""One thing is singular, several are plural, and nothing is said twice."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.program import main
from audit.render import render_document, report
from audit.wording import counted
from tests.audit.fixture_cases import SUBMISSIONS, audited

PLAIN = (SUBMISSIONS / "dense" / "plain" / "train_gpt.py").read_text()
LOG = "world_size:{gpus}\nfinal_int8_zlib_roundtrip_exact val_loss:{loss} val_bpb:1.11344758 eval_time:{ms}ms\n"


def test_a_number_takes_the_form_of_its_noun() -> None:
    assert counted(1, "finding") == "1 finding" and counted(0, "finding") == "0 findings"
    assert counted(1_048_576, "token") == "1,048,576 tokens" and counted(2, "quantity", "quantities") == "2 quantities"


@pytest.mark.parametrize(("number", "said"), [(1, "1 violation, 1 clean"), (2, "2 violations, 1 clean")])
def test_several_targets_are_summed_up_in_english(number: int, said: str) -> None:
    document = report([audited("ngram/plain")])
    bad = report([audited("dense/slot")])["submissions"]
    document["submissions"] += [copy.deepcopy(bad[0]) for _ in range(number)]
    assert said in render_document(document, "text")


def judged(**files: str) -> str:
    texts = {"train_gpt.py": PLAIN, **{name.replace("__", "."): text for name, text in files.items()}}
    return json.dumps(audit_files(text_files(texts, "train_gpt.py"), Options()).as_json())


def test_a_sum_of_one_is_no_sum() -> None:
    metadata = '{"val_bpb": 1.11344758, "seed_results": {"42": {"val_bpb": 1.11344758}}}'
    said = judged(submission__json=metadata, train_seed42__log=LOG.format(gpus=8, loss="1.88", ms=616_900))
    assert "evaluation took 616.9 s of 600 s" in said


def test_one_accelerator_is_one_gpu() -> None:
    metadata = '{"val_bpb": 1.11344758, "seed_results": {"42": {"val_bpb": 1.11344758}}}'
    said = judged(submission__json=metadata, train_seed42__log=LOG.format(gpus=1, loss="1.88", ms=100_000))
    assert "used 1 GPU and not 8" in said and "1 GPUs" not in said


def test_an_unknown_rule_is_told_in_one_sentence(capsys) -> None:
    assert main(["explain", "F99"]) == 2
    assert "no rule 'F99'; known: F1, F2" in capsys.readouterr().err
    assert main(["explain", "score-frist"]) == 2
    assert "no rule 'score-frist', did you mean score-first?; known" in capsys.readouterr().err


def test_a_baseline_of_one_is_told_in_the_singular(tmp_path: Path, capsys) -> None:
    main(["audit", str(SUBMISSIONS / "dense" / "slot"), "--write-baseline", str(tmp_path / "b.json")])
    number = len(json.loads((tmp_path / "b.json").read_text())["findings"])
    assert f": {counted(number, 'finding')}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("tokens", "where"), [(1_048_576, "a set cut at a round number"), (1_048_000, "a set cut at 1,048,576")])
def test_a_set_cut_at_a_round_number_is_not_told_by_that_number_twice(tokens: int, where: str) -> None:
    log = f"seed:42\nval_tokens: {tokens}\nmodel_params:100000\nfinal val_loss:1.88000000 val_bpb:1.11344758\n"
    assert f"{tokens:,} tokens is {where}, not the 50,000 documents" in judged(train_seed42__log=log, submission__json='{"val_bpb": 1.11344758}')
