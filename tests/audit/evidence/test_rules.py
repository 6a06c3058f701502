"""The paper rules' own examples, the identities and tests behind them."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from scipy import stats

from audit.context import Context, Facts, Options
from audit.contracts import InputError
from audit.engine import audit_files
from audit.evidence.claims import contradictions
from audit.evidence.digits import interval
from audit.evidence.identities import TOKENIZERS, read, tokenizer_of_count
from audit.evidence.logs import read_log
from audit.evidence.metadata import read_metadata
from audit.evidence.overlap import judge
from audit.evidence.readme import read_readme
from audit.evidence.runs import view
from audit.evidence.significance import Scores, compare, read_record, welch
from audit.evidence.sizes import mebibytes, run_total, stated_sizes
from audit.model import Finding, Obligation
from audit.rules.base import Example, rule_modules
from audit.source import MemoryTree, SubmissionFiles

RULES = ("D1", "D2", "M1", "B1", "B3", "B4", "E1", "E2", "E3", "E4")
EXAMPLES = [
    (r, kind, e) for r in RULES for kind in ("ILLEGAL", "LEGAL") for e in getattr(rule_modules()[r], kind)
]


@pytest.mark.parametrize(
    ("rule", "kind", "example"), EXAMPLES, ids=lambda x: x.name if isinstance(x, Example) else str(x)
)
def test_examples_beside_the_rules(rule: str, kind: str, example: Example) -> None:
    texts = {"train_gpt.py": example.code, **dict(example.files)}
    tree = MemoryTree({k: v.encode() for k, v in texts.items()})
    files = SubmissionFiles(
        target="x", tree=tree, primary="train_gpt.py", paths=list(texts), changed=list(texts)
    )
    found = audit_files(files, Options(rules=frozenset({rule})))
    hits = [f for f in found.findings if f.rule == rule and f.severity != "note"]
    if kind == "LEGAL":
        assert not hits
    else:
        assert set(example.lines) <= {f.line for f in hits}
        assert {f.line for f in hits} <= set(example.lines) | {
            f.line for f in hits if f.severity == "warning"
        }


def run_of(tokens: int, loss: str, bpb: str):
    text = f"val_tokens: {tokens}\nmodel_params:100000\nfinal val_loss:{loss} val_bpb:{bpb}\n"
    run = view(read_log("a.log", text.encode())).runs[0]
    return run, run.evaluations[0]


@pytest.mark.parametrize("known", TOKENIZERS, ids=lambda t: t.name)
def test_every_known_tokenizer_is_the_full_set_at_its_own_ratio(known) -> None:
    count = known.counts[0]
    bpb = 1.1234
    exact = 151_078_000 / count
    loss = bpb * math.log(2) * exact
    assert read(*run_of(count, f"{loss:.8f}", f"{bpb:.8f}")).kind == "full"
    assert read(*run_of(count, f"{loss:.8f}", f"{bpb * 0.9:.8f}")).kind in {"bytes", "unknown"}
    assert tokenizer_of_count(count) is known


def test_coarse_digits_do_not_accuse() -> None:
    # 0.07 million bytes off, but 1.117 alone leaves that open.
    assert read(*run_of(62_021_632, "1.886", "1.117")).kind == "unknown"
    assert read(*run_of(62_021_632, "1.8865", "1.1173")).kind == "full"


def test_a_partial_set_and_wrong_bytes_are_told_apart() -> None:
    ratio = 3.7266
    loss = 1.1 * math.log(2) * ratio
    assert read(*run_of(39_000_064, f"{loss:.8f}", "1.10000000")).kind == "subset"
    assert read(*run_of(40_540_160, f"{1.1 * math.log(2) * 4.386:.8f}", "1.10000000")).kind == "bytes"
    assert read(*run_of(40_540_160, f"{1.1 * math.log(2):.8f}", "1.10000000")).kind == "unknown"


def papers(**texts: str):
    facts = []
    for name, text in texts.items():
        if name.startswith("log"):
            facts += read_log(f"{name}.log", text.encode())
        elif name == "json":
            facts += read_metadata("submission.json", text.encode())
        else:
            facts += read_readme(f"{name}.md", text)
    return view(facts)


LOG = "seed:{seed}\nval_tokens: {tokens}\nmodel_params:100000\nfinal val_loss:{loss:.8f} val_bpb:{bpb:.8f}\n"


def test_runs_are_tied_by_score_before_seed() -> None:
    good = LOG.format(seed=1, tokens=62_021_632, loss=1.8804, bpb=1.11370000)
    other = LOG.format(seed=2, tokens=262_144, loss=3.0, bpb=1.77)
    found = papers(log1=good, log2=other, json='{"val_bpb": 1.1137}')
    assert [r.scope for r in found.behind] == ["log1.log"] and found.linked == "score"
    found = papers(log1=good, log2=other, json='{"val_bpb": 0.5, "seed_results": {"2": {"val_bpb": 0.4}}}')
    assert [r.scope for r in found.behind] == ["log2.log"] and found.linked == "seed"
    found = papers(log1=good, log2=other, json='{"val_bpb": 0.5}')
    assert len(found.behind) == 2 and found.linked == ""


def test_a_mean_ties_the_runs_that_average_to_it() -> None:
    logs = {
        f"log{s}": LOG.format(seed=s, tokens=62_021_632, loss=1.88, bpb=1.11 + s / 1000) for s in (1, 2, 3)
    }
    found = papers(**logs, json='{"val_bpb": 1.112000}')
    assert found.linked == "score"
    mean = papers(**{k: v for k, v in logs.items() if k != "log2"}, json='{"val_bpb": 1.112000}')
    assert len(mean.behind) == 2 and mean.linked == "score"


def test_totals_skip_raw_weights_and_use_the_packed_script() -> None:
    text = (
        "model_params:1\nCode size: 60000 bytes\nTotal submission size: 99000000 bytes\nSerialized model int6: 15950000 bytes\n"
        "Total submission size int6: 16010000 bytes\nfinal val_loss:1.88 val_bpb:1.11\n"
    )
    run = view(read_log("a.log", text.encode())).runs[0]
    plain, packed = run_total(run, None), run_total(run, 20_000)
    assert plain is not None and plain.over and packed is not None and not packed.over


def test_mebibytes_show_themselves() -> None:
    found = papers(
        README="| Seed | Artifact |\n|---|---|\n| 7 | 15.38 MB |\n\nSeed 7: 1.11 BPB (16.12 MB artifact)\n"
    )
    assert [(a.fact.raw, b.fact.raw) for a, b in mebibytes(stated_sizes(found))] == [("15.38 MB", "16.12 MB")]
    honest = papers(
        README="| Seed | Artifact |\n|---|---|\n| 7 | 15.38 MB |\n\nSeed 7: 1.11 BPB (15.38 MB artifact)\n"
    )
    assert not list(mebibytes(stated_sizes(honest)))


@pytest.mark.parametrize(
    ("shards", "tokens", "kind"),
    [(80, 47_851_520, "disjoint"), (1502, 47_851_520, "overlap"), (1499, 47_851_520, "disputed"),
     (1502, 9_662_464, "disjoint"), (1600, 47_851_520, "disputed")],
)  # fmt: skip
def test_shard_arithmetic(shards: int, tokens: int, kind: str) -> None:
    assert judge(shards, tokens).kind == kind


def test_welch_is_scipys() -> None:
    rng = random.Random(5)
    for _ in range(40):
        new = [rng.gauss(1.10, 0.002) for _ in range(rng.randrange(2, 6))]
        old = [rng.gauss(1.11, 0.004) for _ in range(rng.randrange(2, 6))]
        for margin in (0.0, 0.005):
            ours = welch(new, old, margin)
            theirs = stats.ttest_ind([o - margin for o in old], new, equal_var=False, alternative="greater")
            assert ours.t == pytest.approx(theirs.statistic) and ours.p == pytest.approx(theirs.pvalue)
            assert ours.df == pytest.approx(theirs.df)


def test_one_score_on_a_side_is_a_one_sample_test() -> None:
    ours = welch([1.100, 1.101, 1.102], [1.11], 0.0)
    theirs = stats.ttest_1samp([1.100, 1.101, 1.102], 1.11, alternative="less")
    assert ours.t == pytest.approx(-theirs.statistic) and ours.p == pytest.approx(theirs.pvalue)
    with pytest.raises(ValueError, match="two seeds"):
        welch([1.1], [1.2], 0.0)


def test_nats_are_per_token_only_with_equal_tokenizers() -> None:
    a = Scores((1.10, 1.11), (1.10 * math.log(2) * 2.4359, 1.11 * math.log(2) * 2.4359))
    b = Scores((1.12, 1.13), (1.12 * math.log(2) * 2.4359, 1.13 * math.log(2) * 2.4359))
    c = Scores((1.12, 1.13), (1.12 * math.log(2) * 3.7266, 1.13 * math.log(2) * 3.7266))
    assert compare(a, b)[0].unit == "nats per token"
    strict, progress = compare(a, c)
    assert strict.unit == "nats per byte" and strict.gain == pytest.approx(0.02 * math.log(2))
    assert strict.p > progress.p


def test_a_record_is_a_folder_a_file_or_scores(tmp_path) -> None:
    assert read_record("1.0810,1.0812").bpb == (1.081, 1.0812)
    (tmp_path / "submission.json").write_text(
        '{"val_bpb": 1.2, "seed_results": {"1": {"val_bpb": 1.1991}, "2": {"val_bpb": 1.2009}}}'
    )
    assert read_record(str(tmp_path)).bpb == (1.1991, 1.2009)
    assert read_record(str(tmp_path / "submission.json")).bpb == (1.1991, 1.2009)
    with pytest.raises(InputError):
        read_record("nowhere at all")


def check(rule: str, **texts: str) -> list[Finding]:
    facts = Facts([*papers(**texts).papers, *(f for r in papers(**texts).runs for f in r.facts)])
    ctx = Context(primary="train_gpt.py", facts=facts)
    return [x for x in rule_modules()[rule].check(ctx) if isinstance(x, Finding)]


def test_only_what_stands_behind_the_score_accuses_with_confidence() -> None:
    part = LOG.format(seed=1, tokens=9_662_464, loss=2.35, bpb=1.09366)
    assert [f.confidence for f in check("D2", log1=part, json='{"val_bpb": 1.09366}')] == ["high"]
    assert [f.confidence for f in check("D2", log1=part, json='{"val_bpb": 0.9, "seeds": [1]}')] == ["medium"]
    assert [f.confidence for f in check("D2", log1=part, json='{"val_bpb": 0.9}')] == ["low"]


@pytest.mark.parametrize(
    ("readme", "kind"),
    [
        ("- 3% magnitude pruning\n\nINT5 + 2% magnitude pruning\n", "pruning"),
        ("70ms/step (vs 87ms without) → 33% more training steps\n", "arithmetic"),
        ("| Seed | Steps | ms/step |\n|---|---|---|\n| 1 | 9,912 | 67.0 |\n", "arithmetic"),
        (
            "| Seed | Artifact |\n|---|---|\n| 1 | 15.38 MB |\n\nSeed 1: 1.11 BPB (16.12 MB artifact)\n",
            "size",
        ),
    ],
)
def test_contradictions_of_a_readme_with_itself(readme: str, kind: str) -> None:
    found = contradictions(papers(README="# X\n\n" + readme))
    assert kind in {c.kind for c in found}
    for item in found:
        assert len(item.places) >= 2


@pytest.mark.parametrize(
    "readme",
    [
        "- 3% magnitude pruning\n\nINT5 + 3% magnitude pruning\n",
        "70ms/step (vs 87ms without) → 24% more training steps\n",
        "| Seed | Steps | ms/step |\n|---|---|---|\n| 1 | 8,571 | 70.0 |\n",
        "| Seed | Steps | ms/step |\n|---|---|---|\n| 1 | 7,904 | 70.0 |\n",
        "| Seed | Artifact |\n|---|---|\n| 1 | 15.38 MB |\n\nSeed 1: 1.11 BPB (15.38 MB artifact)\n",
    ],
)
def test_consistent_readmes_have_none(readme: str) -> None:
    assert contradictions(papers(README="# X\n\n" + readme)) == []


def test_intervals_never_shrink_with_fewer_digits() -> None:
    widths = [interval(f"{1.11723456:.{n}f}") for n in range(2, 8)]
    assert all(a.high - a.low > b.high - b.low for a, b in pairwise(widths))


@pytest.mark.parametrize(
    ("gpus", "severity"), [("world_size:8\n", ["violation"]), ("", ["warning"]), ("world_size:1\n", [])]
)
def test_a_budget_binds_on_eight_gpus(gpus: str, severity: list[str]) -> None:
    log = (
        f"model_params:100000\n{gpus}stopping_early: wallclock_cap train_time:700000ms step:10/20\n"
        "final val_loss:1.88 val_bpb:1.1137\n"
    )
    assert [f.severity for f in check("B3", log1=log, json='{"val_bpb": 1.1137}')] == severity


@pytest.mark.parametrize(
    ("said", "severity"),
    [
        ("Trained on 8×H100 SXM in 700 seconds.", ["violation"]),
        ("**Training time:** 700 s on 8xH100", ["violation"]),
        ("Trained on 1xH100 in 700 seconds.", ["warning"]),
        ("Trained on 8xH100.\n\nSeed 7 was trained on 1xH100.", ["warning"]),
        ("Training needs less than on 8xH100.", ["warning"]),
        ("Next: a full 10-min run on 8xH100.", ["warning"]),
    ],
)
def test_the_readme_says_on_what_the_run_was_trained(said: str, severity: list[str]) -> None:
    log = "model_params:100000\nstopping_early: wallclock_cap train_time:700000ms step:10/20\nfinal val_loss:1.88 val_bpb:1.1137\n"
    found = check("B3", log1=log, json='{"val_bpb": 1.1137}', README=f"# X\n\n{said}\n")
    assert [f.severity for f in found] == severity


@pytest.mark.parametrize(("trained", "hessians", "severity"), [(599_600, 4.7, "warning"), (585_000, 29.0, "warning"), (585_000, 37.5, "violation")])
def test_hessians_after_the_clock(trained: int, hessians: float, severity: str) -> None:
    log = (
        f"world_size:8\nmodel_params:100000\nstopping_early: wallclock_cap train_time:{trained}ms step:10/20\n"
        f"GPTQ:collected 67 Hessians in {hessians}s\nfinal val_loss:1.88 val_bpb:1.1137\n"
    )
    assert [f.severity for f in check("B3", log1=log, json='{"val_bpb": 1.1137}')] == [severity]


def test_a_log_set_apart_by_its_name_is_not_tied_by_its_seed() -> None:
    log = LOG.format(seed=1, tokens=262_144, loss=3.0, bpb=1.77)
    assert papers(log1=log, json='{"seed_results": {"1": {"val_bpb": 1.1}}}').linked == "seed"
    assert papers(log_baseline=log, json='{"seed_results": {"1": {"val_bpb": 1.1}}}').linked == ""


def _run(seed: int, total: int, bpb: float) -> str:
    return (
        f"seed: {seed}\nworld_size: 8\nmodel_params: 1000000\nTotal submission size int6+lzma: {total} bytes\n"
        f"stopping_early: wallclock_cap train_time:{599_000 if total < 16_000_000 else 604_000}ms step:6000/20000\n"
        f"final_int6_exact val_loss:1.88000000 val_bpb:{bpb:.8f}\n"
    )


_SEEDS = '{{"val_bpb": 1.11344758,{mean} "seeds": {{"1": {{"ours_bpb": 1.11344758}}, "2": {{"ours_bpb": 1.1199, "ours_bytes": 16168277}}}}}}'


@pytest.mark.parametrize("rule", ["B1", "B3"])
@pytest.mark.parametrize(("mean", "severity"), [("", {"warning"}), (' "val_bpb_mean": 1.1167,', {"violation"})])
def test_another_seed_counts_where_a_mean_is_stated(rule: str, mean: str, severity: set[str]) -> None:
    logs = {"log1": _run(1, 15_999_999, 1.11344758), "log2": _run(2, 16_168_277, 1.1199)}
    assert {f.severity for f in check(rule, json=_SEEDS.format(mean=mean), **logs)} == severity


def test_a_log_that_names_no_seed_may_be_of_any() -> None:
    logs = {"log1": _run(1, 15_999_999, 1.11344758).replace("seed: 1\n", ""), "log2": _run(2, 16_168_277, 1.1199)}
    assert {f.severity for f in check("B1", json=_SEEDS.format(mean=""), **logs)} == {"violation"}


@pytest.mark.parametrize(
    ("stated", "severity"), [(15_994_521, "warning"), (16_045_826, "violation")]
)
def test_a_log_of_the_seed_before_the_model_was_quantized_once_more(stated: int, severity: str) -> None:
    said = f'{{"val_bpb": 1.1199, "seed_results": {{"2": {{"val_bpb": 1.1199, "artifact_bytes": {stated}}}}}}}'
    assert {f.severity for f in check("B1", log=_run(2, 16_045_826, 1.11), json=said)} == {severity}


def test_a_model_over_the_cap_accuses_only_where_no_size_fits() -> None:
    alone = '{"val_bpb": 1.1134, "compressed_size_bytes": 16349337}'
    assert [f.severity for f in check("B1", json=alone)] == ["violation"]
    assert not check("B1", json=alone, log=_run(1, 15_999_999, 1.1134))
    assert not check("B1", json=alone.replace("}", ', "bytes_model_int6_zlib": 14784469}'))
    # 15.59 MiB are 16,349,337 bytes: the table's figure is no smaller artifact
    assert {f.severity for f in check("B1", json=alone, README="# X\n\n**Artifact:** 15.59 MB\n")} == {"violation", "warning"}


@pytest.mark.parametrize(
    ("bpb", "more", "undetermined"),
    [
        (2.52733178, "", True),  # 2.4052 bytes per token: the set's beginning has them
        (2.50000000, "", False),  # a fifth of a per cent off
        (2.52733178, "final_exact val_loss:4.21352220 val_bpb:2.49550000\n", False),  # the other reported line is right
    ],
)
def test_loss_and_score_far_apart_do_not_show_the_full_set(bpb: float, more: str, undetermined: bool) -> None:
    log = f"model_params:1\nval_tokens: 62021632\nfinal val_loss:4.21352220 val_bpb:{bpb:.8f}\n{more}"
    stated = f'{{"seed_results": {{"1": {{"val_bpb": {bpb:.8f}}}, "2": {{"val_bpb": 2.49550000}}}}}}'
    found = papers(log=log, json=stated)
    ctx = Context(primary="train_gpt.py", facts=Facts([*found.papers, *(f for r in found.runs for f in r.facts)]))
    shown = list(rule_modules()["D2"].check(ctx))
    assert any(isinstance(x, Obligation) and x.status == "undetermined" for x in shown) == undetermined
    assert not [x for x in shown if isinstance(x, Finding) and x.severity == "violation"]


_STEP = "model_params:1\nstep:1186/2600 val_loss:2.3771 val_bpb:1.4078 train_time:600485ms step_avg:506.31ms\n"


@pytest.mark.parametrize(
    ("log", "stated", "said"),
    [
        (_STEP + "final_int8_zlib_roundtrip_exact val_loss:2.5753 val_bpb:1.52523098\n", 1.4078, "the artifact's is 1.52523098"),
        ("model_params:1\npre-quantization post-ema val_loss:1.978179 val_bpb:1.17158907\n", 1.17158907, "prints none"),
        (_STEP + "final_int8_zlib_roundtrip_exact val_loss:2.5753 val_bpb:1.52523098\n", 1.5252, ""),  # the artifact's own
        (_STEP + "final_int8_zlib_roundtrip_exact val_loss:2.3775 val_bpb:1.40810000\n", 1.4078, ""),  # no worse to speak of
        (_STEP + "final_sliding val_loss:2.3200 val_bpb:1.37400000\n", 1.4078, ""),  # the modest one of two
        (_STEP, 1.4078, ""),  # all that the log has
    ],
)
def test_the_stated_score_is_the_artifacts(log: str, stated: float, said: str) -> None:
    found = check("B7", log=log, json=f'{{"val_bpb": {stated}}}')
    assert [f.severity for f in found] == (["warning"] if said else [])
    assert all(said in f.message for f in found)


def test_another_log_may_print_the_stated_score_after_quantization() -> None:
    early = _STEP + "final_int8_zlib_roundtrip_exact val_loss:2.5753 val_bpb:1.52523098\n"
    later = "model_params:1\nfinal_int8_zlib_roundtrip_exact val_loss:2.3771 val_bpb:1.40780000\n"
    assert not check("B7", log1=early, log2=later, json='{"val_bpb": 1.4078}')


@pytest.mark.parametrize(("rule", "key"), [("B3", "training_time_seconds"), ("B4", "eval_time_seconds")])
def test_a_stated_time_over_the_limit_is_a_doubt_where_no_log_has_a_clock(rule: str, key: str) -> None:
    said = f'{{"val_bpb": 1.1137, "{key}": 2145}}'
    assert [f.severity for f in check(rule, json=said)] == ["warning"]
    assert not check(rule, json=said.replace("2145", "599"))
    clocked = _run(1, 15_999_999, 1.1137).replace("val_bpb:1.11370000", "val_bpb:1.11370000 eval_time:90000ms")
    assert not check(rule, json=said, log=clocked)
