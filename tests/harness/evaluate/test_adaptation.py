"""The adaptation recipes: what each trains, in which order, and that the record says so."""

import numpy as np
import pytest
import torch

from audit.contracts import InputError
from harness.adapt.catalog import NAMES, build, settings
from harness.adapt.select import Discriminative, FreezeFirst, LastBlocks, cosine
from harness.mutants.runs import Adapter
from harness.scorecard.verify import verify
from harness.scorecard.writer import read_events


def updates(result):
    return [e for e in read_events(result.out) if e["kind"] == "update"]


def run(lab, tmp_path, ttt, **chosen):
    from harness.evaluate.run import Evaluation, Options
    from harness.evaluate.score import Numerics

    options = Options(context=32, stride=8, ttt=ttt, ttt_set=chosen, probes=2, numerics=Numerics(precision="float64", batch=8))
    made = Evaluation(lab.model(), lab.stream, options, identity={"name": "lab", "sha256": "0" * 64, "bytes": 0, "family": "lab"})
    return made, made.run(tmp_path / ttt)


@pytest.mark.parametrize(
    ("ttt", "chosen"),
    [
        ("sgd", {"chunk": 64, "freeze": 0, "lr": 0.1}),
        ("sgd", {"chunk": 50, "freeze": 1, "lr": 0.1, "clip": 0.5}),
        ("sgd", {"chunk": 64, "freeze": 0, "lr": 0.1, "decay": 0.5, "schedule": "constant"}),
        ("sgd", {"chunk": 32, "freeze": 0, "lr": 0.1, "reset": 2}),
        ("adamw", {"chunk": 64, "lr": 0.01, "last": 1}),
        ("lora", {"chunk": 16, "lr": 0.05, "rank": 2}),
        ("phased", {"chunk": 64, "documents": 1, "lr": 0.1}),
    ],
)
def test_every_recipe_adapts_under_a_shown_order(lab, tmp_path, ttt, chosen):
    _frozen, plain = run(lab, tmp_path, "none", chunk=64)
    _made, result = run(lab, tmp_path, ttt, **chosen)
    assert {n: c["status"] for n, c in result.claims.items()} == {
        "P1": "shown", "P2": "shown", "P3": "shown", "P4": "not shown"}  # fmt: skip
    assert result.nats != plain.nats
    assert any(e["written"] and e["steps"] for e in updates(result))
    for event in updates(result):
        assert all(hi <= 1 + event_end(result, event["chunk"]) for _lo, hi in event["used"])
    assert verify(result.out, data=lab.data, tokenizer=lab.tokenizer).problems == []


def event_end(result, chunk):
    return next(e["targets"][1] for e in read_events(result.out) if e["kind"] == "score" and e["chunk"] == chunk)


def test_chunk_ttt_equals_a_loop_written_by_hand(lab, tmp_path):
    _made, result = run(lab, tmp_path, "sgd", chunk=64, freeze=0, lr=0.2, epochs=2, rows=1, clip=0.7, momentum=0.5)
    model = lab.model()
    tokens = torch.from_numpy(lab.stream.tokens.astype(np.int64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)
    nll = np.zeros(lab.stream.targets)
    for c in range(4):
        for at in range(64 * c, 64 * c + 64, 8):
            start = max(0, at + 8 - 32) if at >= 32 else 0
            with torch.no_grad():
                logp = torch.log_softmax(model.forward_logits(tokens[None, start : at + 8]), 2)[0, -8:]
            nll[at : at + 8] = -logp.gather(1, tokens[at + 1 : at + 9, None])[:, 0]
        optimizer.param_groups[0]["lr"] = 0.2 * cosine(c, 4)
        for _epoch in range(2):
            for row in (64 * c, 64 * c + 32):
                if c == 3:
                    continue
                optimizer.zero_grad()
                logits = model.forward_logits(tokens[None, row : row + 32])
                torch.nn.functional.cross_entropy(logits[0], tokens[row + 1 : row + 33]).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.7)
                optimizer.step()
    stored = np.load(result.out / "nll.npy")
    assert np.abs(stored - nll).max() < 1e-5


def test_a_document_pair_starts_afresh_with_every_document(lab, tmp_path):
    """Each document's scores are those of the document alone: nothing is carried over but the window's context."""
    made, result = run(lab, tmp_path, "lora", chunk=16, lr=0.05, rank=2)
    starts = made.documents.tolist()
    assert len(starts) > 2
    after = {e["chunk"]: e["state_after"] for e in updates(result)}
    ends = [c for c in after if int(made.plan.chunk_targets[c + 1]) in starts]
    assert len({after[c] for c in ends}) == 1, "the state after each document is the artifact's"
    assert len(set(after.values())) > 1


def test_phased_updates_use_only_finished_documents(lab, tmp_path):
    made, result = run(lab, tmp_path, "phased", chunk=64, documents=2, lr=0.1)
    starts = [*made.documents.tolist(), lab.stream.targets]
    for event in updates(result):
        if event["steps"]:
            lo, hi = event["used"][0][0], event["used"][-1][1]
            assert lo in starts and hi - 1 in starts


def test_frozen_parameters_do_not_move(lab, tmp_path):
    made, _result = run(lab, tmp_path, "sgd", chunk=64, freeze=1, lr=0.2)
    fresh = dict(lab.model().named_parameters())
    moved = {n for n, p in made.model.named_parameters() if not torch.equal(p, fresh[n])}
    assert moved and not any(n.startswith("blocks.0") for n in moved)


def test_selection_and_rates():
    model = torch.nn.Module()
    model.blocks = torch.nn.ModuleList(torch.nn.Linear(2, 2, bias=False) for _ in range(3))
    model.final_norm = torch.nn.LayerNorm(2)
    named = list(model.named_parameters())
    assert [n for n, _ in FreezeFirst(count=2)(named)] == ["blocks.2.weight", "final_norm.weight", "final_norm.bias"]
    assert [n for n, _ in LastBlocks(count=1)(named)] == ["blocks.2.weight", "final_norm.weight", "final_norm.bias"]
    rates = Discriminative(decay=0.5)
    assert [rates(n, 3) for n, _ in named] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert (cosine(0, 5), cosine(4, 5)) == (1.0, pytest.approx(0.0))


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("slot", {}, "unknown adaptation"), ("sgd", {"speed": "1"}, "no setting 'speed'"), ("sgd", {"lr": "fast"}, "lr=fast"),
        ("sgd", {"schedule": "linear"}, "choose cosine or constant"), ("sgd", {"chunk": "0"}, "at least 1"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_clear_error(name, chosen, message):
    with pytest.raises(InputError, match=message):
        settings(name, chosen)


def test_the_catalog_holds_the_recipes_of_the_submissions():
    assert NAMES == ("none", "sgd", "adamw", "lora", "phased")
    a1 = build("sgd", settings("sgd"), 2048)
    assert (a1.chunk, a1.lr, a1.epochs, a1.clip, a1.rows) == (32_768, 0.002, 3, 1.0, 32)
    a2 = build("adamw", settings("adamw"), 2048)
    assert (a2.chunk, a2.lr, a2.epochs) == (262_144, 1e-4, 5)


def test_a_refusal_is_recorded_and_raises(lab, tmp_path):
    seen = []

    class Greedy(Adapter):
        def adapt(self, grant):
            try:
                grant.tokens(0, grant.scored + 2)
            except PermissionError as error:
                seen.append(str(error))

    result = lab.evaluation(adaptation=Greedy()).run(tmp_path / "card")
    assert len(seen) == 4
    assert [e["what"] for e in read_events(result.out) if e["kind"] == "refused"] == seen
