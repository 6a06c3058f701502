"""``referee eval`` and ``referee verify`` as a user meets them, on an artifact of the real family; one rank and two."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.artifact.container import write_artifact
from harness.artifact.grids import float_record
from harness.cli import main
from harness.scorecard.writer import read_events
from harness.tokens.shards import write_shard
from reference_model.config import ModelConfig
from reference_model.model.golf import Golf

CONFIG = ModelConfig(vocab=260, layers=2, dim=32, heads=2, kv_heads=1, mlp_hidden=48, xsa_layers=1, smear=True)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    torch.manual_seed(0)
    model = Golf(CONFIG)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(std=0.2)
    path = tmp_path_factory.mktemp("artifact") / "tiny.ref"
    tensors = [float_record(n, t.numpy(), "fp32") for n, t in model.state_dict().items()]
    write_artifact(path, family="golf", config=dataclasses.asdict(CONFIG), tensors=tensors)
    return path


@pytest.fixture
def evaluate(lab, artifact, capsys):
    def run(out, *more):
        code = main(["eval", str(artifact), "--data", str(lab.data), "--tokenizer", str(lab.tokenizer), "--out", str(out),
                     "--context", "32", "--stride", "8", "--batch", "4", "--quiet", "--probes", "2", *more])  # fmt: skip
        return code, capsys.readouterr()

    return run


def verified(capsys, folder, lab, artifact, *more):
    capsys.readouterr()
    code = main(["verify", str(folder), "--artifact", str(artifact), "--data", str(lab.data),
                 "--tokenizer", str(lab.tokenizer), "--format", "json", *more])  # fmt: skip
    return code, json.loads(capsys.readouterr().out)


def test_eval_and_verify_agree_and_replay_and_decode_show_p4(evaluate, tmp_path, lab, artifact, capsys):
    code, out = evaluate(tmp_path / "card", "--format", "json", "--ttt", "sgd", "--set", "freeze=0", "--set", "lr=0.1",
                         "--chunk", "64", "--deterministic")  # fmt: skip
    summary = json.loads(out.out)
    assert (code, summary["exit"], summary["schema"]) == (0, 0, "referee.eval/1")
    code, found = verified(capsys, tmp_path / "card", lab, artifact, "--replay", "2", "--decode", "80")
    assert code == 0, found
    assert found["bits_per_byte"] == pytest.approx(summary["bits_per_byte"], rel=1e-12)
    assert found["claims"]["P4"]["status"] == "shown"
    assert "80 targets were decoded" in found["claims"]["P4"]["reason"]


def test_the_text_names_the_four_claims_apart(evaluate, tmp_path):
    code, out = evaluate(tmp_path / "card")
    assert code == 0
    for line in ("P1 order          shown", "P2 causality      shown", "P3 normalisation  shown", "P4 replay         not shown"):
        assert line in out.out


def test_a_cap_marks_every_output_as_partial(evaluate, tmp_path, lab, artifact, capsys):
    _code, out = evaluate(tmp_path / "card", "--max-tokens", "100")
    assert "PARTIAL" in out.out
    code, found = verified(capsys, tmp_path / "card", lab, artifact)
    assert (code, found["partial"]) == (0, True)
    assert main(["verify", str(tmp_path / "card")]) == 0
    assert "PARTIAL" in capsys.readouterr().out
    _code, out = evaluate(tmp_path / "sweep", "--max-tokens", "100", "--sweep", "none", "--sweep", "sgd:chunk=64,freeze=0")
    assert out.out.count("PARTIAL") == 2
    assert "F18" in out.err


def test_a_sweep_leaves_one_scorecard_per_setting(evaluate, tmp_path, lab, artifact, capsys):
    code, out = evaluate(tmp_path / "s", "--format", "json", "--sweep", "none", "--sweep", "adamw:lr=0.01,chunk=64")
    rows = json.loads(out.out)["rows"]
    assert code == 0
    assert [r["setting"] for r in rows] == ["none", "adamw:lr=0.01,chunk=64"]
    assert rows[0]["bits_per_byte"] != rows[1]["bits_per_byte"]
    assert verified(capsys, tmp_path / "s" / "01-adamw", lab, artifact)[0] == 0


@pytest.mark.parametrize(
    "more",
    [("--plan", "official", "--ttt", "sgd", "--chunk", "64", "--set", "freeze=0"),
     ("--ttt", "lora", "--set", "rank=2"),
     ("--ttt", "phased", "--set", "documents=1", "--set", "freeze=0"),
     ("--ttt", "adamw", "--chunk", "50", "--precision", "float64"),
     ("--ttt", "sgd", "--chunk", "64", "--set", "reset=2", "--set", "decay=0.5", "--precision", "bf16")],
    ids=["official", "lora", "phased", "odd chunk", "reset in bf16"],
)  # fmt: skip
def test_every_way_of_evaluating_can_be_executed_again(evaluate, tmp_path, lab, artifact, capsys, more):
    assert evaluate(tmp_path / "card", *more)[0] == 0
    code, found = verified(capsys, tmp_path / "card", lab, artifact, "--replay", "3")
    assert code == 0, found
    assert found["claims"]["P4"]["status"] == "shown"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--ttt", "sgd", "--set", "speed=1"), "no setting 'speed'"),
        (("--set", "chunk"), "not KEY=VALUE"),
        (("--stride", "64"), "must be between 1 and the context"),
        (("--max-tokens", "1"), "leaves no target"),
        (("--device", "cuda:7"), "no CUDA device"),
        (("--batch", "0"), "at least 1 window"),
        (("--threads", "0"), "at least 1"),
        (("--sweep", "none", "--ttt", "sgd"), "leave out"),
        (("--sweep", "magic"), "unknown adaptation 'magic'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(evaluate, tmp_path, more, message):
    code, out = evaluate(tmp_path / "card", *more)
    assert code == 2
    assert message in out.err and len(out.err.strip().splitlines()) == 1


def test_missing_and_foreign_files_are_one_line_and_exit_2(lab, artifact, tmp_path, capsys):
    for arguments in (
        ["eval", str(tmp_path / "no.ref"), "--data", str(lab.data)],
        ["eval", str(lab.artifact), "--data", str(lab.data), "--tokenizer", str(lab.tokenizer), "--context", "32", "--stride", "8"],
        ["eval", str(artifact), "--data", str(tmp_path)],
        ["verify", str(tmp_path)],
        ["verify", str(tmp_path), "--replay", "1"],
    ):  # fmt: skip
        assert main([*arguments, *(["--out", str(tmp_path / "x")] if arguments[0] == "eval" else [])]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_wrong_artifact_or_shard_is_a_violation(evaluate, tmp_path, lab, artifact, capsys):
    evaluate(tmp_path / "card")
    assert verified(capsys, tmp_path / "card", lab, lab.artifact)[0] == 1
    other = tmp_path / "data"
    write_shard(other / "fineweb_val_000000.bin", lab.stream.tokens[::-1])
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "card"), "--data", str(other), "--tokenizer", str(lab.tokenizer)]) == 1
    assert "not the shards" in capsys.readouterr().out


def test_a_byte_sidecar_replaces_the_table_and_is_checked(evaluate, tmp_path, lab, artifact, capsys):
    tokens = lab.stream.tokens
    whole = np.fromfile(lab.data / "fineweb_val_000000.bin", "<u2")[512:]
    counts = np.where(whole == 1, 0, 1).astype(np.uint16)
    # A case transform moves a byte from one target to its neighbour; the total stays.
    counts[10], counts[11] = 0, 2
    side = tmp_path / "side" / "fineweb_val_bytes_000000.bin"
    write_shard(side, counts)
    code, out = evaluate(tmp_path / "card", "--byte-sidecar", str(side.parent), "--format", "json")
    assert code == 0, out.err
    assert json.loads(out.out)["bytes"] == int(counts[1 : len(tokens)].sum())
    assert verified(capsys, tmp_path / "card", lab, artifact, "--byte-sidecar", str(side.parent))[0] == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "card"), "--data", str(lab.data), "--tokenizer", str(lab.tokenizer)]) == 2
    assert "--byte-sidecar" in capsys.readouterr().err
    counts[10], counts[11] = 2, 0  # the same total in every chunk, another sidecar
    write_shard(side, counts)
    assert verified(capsys, tmp_path / "card", lab, artifact, "--byte-sidecar", str(side.parent))[0] == 1
    for wrong, message in ((counts[:-1], "not this stream's sidecar"), (counts * 3, "inflates"), (counts + 1, "BOS")):
        write_shard(side, wrong)
        code, out = evaluate(tmp_path / "again", "--byte-sidecar", str(side.parent))
        assert code == 2 and message in out.err


def ranks(count, lab, artifact, out, *more):
    """``torchrun`` without torchrun: one process per rank with the environment it sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["eval", str(artifact), "--data", str(lab.data), "--tokenizer", str(lab.tokenizer), "--out", str(out),
                 "--context", "32", "--stride", "8", "--batch", "1", "--quiet", "--probes", "2", "--threads", "1", *more]  # fmt: skip
    base = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parents[3])}  # fmt: skip
    started = [
        subprocess.Popen([sys.executable, "-m", "harness", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env={**base, "RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(count)})
        for r in range(count)
    ]  # fmt: skip
    ends = [p.communicate(timeout=120) for p in started]
    assert [p.returncode for p in started] == [0] * count, ends
    return np.load(out / "nll.npy")


@pytest.mark.parametrize("ttt", [(), ("--ttt", "sgd", "--set", "freeze=0", "--set", "lr=0.1", "--chunk", "64", "--set", "rows=2")])
def test_two_ranks_score_what_one_scores(lab, artifact, tmp_path, capsys, ttt, evaluate):
    two = ranks(2, lab, artifact, tmp_path / "two", *ttt)
    evaluate(tmp_path / "one", "--batch", "1", *ttt)
    one = np.load(tmp_path / "one" / "nll.npy")
    if ttt:
        assert np.abs(one - two).max() < 1e-5  # gradients are summed in another order
    else:
        assert (one == two).all()  # equal batch shapes, no update: the same bits
    assert verified(capsys, tmp_path / "two", lab, artifact)[0] == 0
    events = read_events(tmp_path / "two")
    assert events[0]["environment"]["world"] == 2
    assert events[-1]["claims"]["P1"]["status"] == "shown"
    order = [(e["kind"], e["collective"]) for e in events if e["kind"] in ("score", "update")]
    assert [c for _k, c in order] == sorted(c for _k, c in order)
    for score, update in zip(order[::2], order[1::2], strict=False):
        if ttt:  # the update's collectives come after the ones that united the chunk's scores
            assert (score[0], update[0]) == ("score", "update") and score[1] < update[1]
