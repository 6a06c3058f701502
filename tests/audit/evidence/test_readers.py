"""Logs, metadata and README files in the contest's dialects, and in broken ones."""

from __future__ import annotations

import io
import random

import pytest

from audit.evidence.logs import BLOCK, read_log
from audit.evidence.metadata import read_metadata
from audit.evidence.readme import read_readme
from audit.evidence.words import measure, quantity
from audit.model import Fact


def log(text: str) -> list[Fact]:
    return list(read_log("train.log", text.encode()))


def said(facts: list[Fact], name: str) -> list[object]:
    return [f.value for f in facts if f.name == name]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("val_loader:shards pattern=x/fineweb_val_*.bin tokens:62021632", "val_tokens", 62_021_632),
        ("val_tokens: 40540160", "val_tokens", 40_540_160),
        ("Validation tokens: 62,021,632", "val_tokens", 62_021_632),
        ("train_loader:dataset:fineweb10B_sp1024 train_shards:80", "train_shards", 80),
        ("Total submission size int6+lzma: 15984850 bytes", "bytes_total", 15_984_850.0),
        ("Artifact: 15,143,381 bytes (14.44 MB)", "bytes_total", 15_143_381.0),
        ("Serialized model quantized+brotli: 15976325 bytes", "bytes_model", 15_976_325.0),
        ("Code size (compressed): 27310 bytes", "bytes_code", 27_310.0),
        ("stopping_early: wallclock_cap train_time: 590116ms step: 5556/20000", "train_time_s", 590.116),
        ("stopping_early: wallclock_cap train_time:598028ms step:14141/20000", "steps", 14_141),
        ("quantized_ttt val_loss:2.79 val_bpb:1.0810 eval_time:368074ms", "eval_time_s", 368.074),
        ("ttt_sliding:done val_loss=1.89064359 val_bpb=1.11900566 elapsed=419.3s", "val_bpb", 1.11900566),
        ("ppm_mix bytes=10982035 mix_bpb=1.000307 ppm_only=2.38", "val_bpb", 1.000307),
        ("2026-04-29 19:05:01+08:00 quantized val_loss:2.78 val_bpb:1.0773", "val_bpb", 1.0773),
        ("total_eval_time:497.5s", "total_eval_time_s", 497.5),
        ("GPTQ:collected 67 Hessians in 12.7s", "hessian_s", 12.7),
        ("ngram_tilt:precompute_outside_timer_done elapsed=164.5s excluded", "precompute_s", 164.5),
        ("model_params:26993756", "model_params", 26_993_756),
        ("seed:1337", "seed", 1337),
    ],
)
def test_log_lines(line: str, name: str, value: object) -> None:
    assert value in said(log(f"something else\n{line}\nand more\n"), name)
    assert next(f for f in log(f"x\n\n{line}\n") if f.name == name).line == 3


def test_counts_of_parameters_are_no_sizes() -> None:
    assert (
        said(log("  total: 23,839,044 params (95.36 MB fp32)\ntotal_bytes=151080891\n"), "bytes_total") == []
    )


def test_sizes_side_by_side() -> None:
    facts = log("INT7+zlib model: 15370972 bytes | Total submission: 15441941 bytes\n")
    assert said(facts, "bytes_model") == [15_370_972.0] and said(facts, "bytes_total") == [15_441_941.0]


def test_only_the_last_progress_line_of_a_run_counts() -> None:
    text = "model_params:1000\n" + "".join(
        f"step:{n}/9 train_time:{n}ms step_avg:1.00ms\n" for n in range(1, 9)
    )
    assert said(log(text), "last_step") == [8]


def test_training_validation_and_chunk_lines_are_no_final_scores() -> None:
    text = "0/20000 val_loss: 6.9 val_bpb: 4.1\n500/500 val_loss: 2.1 val_bpb: 1.25\n  ttt_chunk [1/9] bpb=1.2 time=1s\n"
    facts = log(text)
    assert said(facts, "val_bpb") == []
    assert said(facts, "step_val_bpb") == [1.25]


def test_a_log_that_begins_with_its_own_source_states_only_what_ran() -> None:
    source = 'log0(f"final val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f}")\ncode_bytes = 12345\n# val_bpb: 1.2345 was before\n'
    assert said(log(source + "final val_loss:2.0 val_bpb:1.1811\n"), "val_bpb") == [1.1811]


def test_a_file_of_two_runs_has_two_scopes() -> None:
    run = "Hyperparameters:\n  seed: {0}\nmodel_params:1000\nfinal_x val_loss:2.0 val_bpb:1.{0}\n"
    facts = log(run.format(111) + run.format(222))
    assert {f.scope for f in facts if f.name == "val_bpb"} == {"train.log", "train.log#2"}
    assert said(facts, "seed") == [111, 222]


def test_the_dump_gives_knobs_and_ends_where_it_ends() -> None:
    facts = log("Hyperparameters:\n  num_layers: 11\n  ttt_enabled: True\ntrain_shards: 80\n  later: 5\n")
    knobs = {f.name: f.value for f in facts if f.name.startswith("knob.")}
    assert knobs == {"knob.NUM_LAYERS": "11", "knob.TTT_ENABLED": "True"}
    assert said(facts, "train_shards") == [80]


def test_lines_across_block_borders_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import audit.evidence.logs as logs

    text = (
        "".join(f"noise {i} " * 5 + "\n" for i in range(50))
        + "final val_loss:2.0 val_bpb:1.1811\n"
        + "x\n" * 50
    )
    whole = [(f.name, f.value, f.line) for f in log(text)]
    for size in (7, 64, 1000):
        monkeypatch.setattr(logs, "BLOCK", size)
        assert [(f.name, f.value, f.line) for f in read_log("train.log", io.BytesIO(text.encode()))] == whole
    assert BLOCK > 1000


def test_utf16_logs_are_read() -> None:
    text = "seed:7\nfinal val_loss:2.0 val_bpb:1.1811\n"
    assert said(list(read_log("a.log", text.encode("utf-16"))), "val_bpb") == [1.1811]


def test_no_bytes_break_the_readers() -> None:
    rng = random.Random(3)
    seeds = [b"final val_loss:2.0 val_bpb:1.1811 eval_time:1ms\n", b"Hyperparameters:\n  a: b\n", b'{"seeds": {"1": {"val_bpb": 1.1}}}',
             b"| Seed | val_bpb |\n|---|---|\n| 1 | 1.1 |\n", b"Total submission size: 1e400 bytes\n", b"seed:,,,\nmodel_params:,\n"]  # fmt: skip
    for _ in range(400):
        data = bytearray(b"".join(rng.choices(seeds, k=4)))
        for _ in range(rng.randrange(12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        text = bytes(data).decode("utf-8", "replace")
        list(read_log("x.log", bytes(data)))
        list(read_metadata("submission.json", bytes(data)))
        list(read_readme("README.md", text))


META = {
    "flat": ('{"val_bpb": 1.11, "bytes_total": 15984850}', [("val_bpb", 1.11, ""), ("bytes_total", 15_984_850.0, "")]),
    "per seed": ('{"seed_results": {"42": {"val_bpb": 1.1, "artifact_bytes": 15000000}}}',
                 [("val_bpb", 1.1, "seed:42"), ("bytes_total", 15e6, "seed:42")]),
    "seed as key of numbers": ('{"val_bpb_seeds": {"1337": 1.02}}', [("val_bpb", 1.02, "seed:1337")]),
    "list of objects": ('{"seed_results": [{"seed": 7, "val_bpb": 1.3}]}', [("val_bpb", 1.3, "seed:7")]),
    "parallel lists": ('{"seeds": [5, 6], "val_bpb_per_seed": [1.1, 1.2]}', [("val_bpb", 1.1, "seed:5"), ("val_bpb", 1.2, "seed:6")]),
    "prefixed": ('{"seed_300": {"val_bpb": 0.9, "train_time_s": 600}}', [("val_bpb", 0.9, "seed:300"), ("train_time_s", 600.0, "seed:300")]),
    "milliseconds": ('{"train_time_ms": 599779}', [("train_time_s", 599.779, "")]),
    "missing comma": ('{"val_bpb": 1.11\n "bytes_total": 15984850}', [("val_bpb", 1.11, ""), ("bytes_total", 15_984_850.0, "")]),
    "two documents": ('{"val_bpb": 1.11}\n{"x": 1}', [("val_bpb", 1.11, "")]),
    "byte-order mark": ('\ufeff{"val_bpb": 1.11}', [("val_bpb", 1.11, "")]),
    "open string": ('{"val_bpb": 1.11, "name": "abc\n', [("val_bpb", 1.11, "")]),
}  # fmt: skip


@pytest.mark.parametrize("shape", META)
def test_metadata_shapes(shape: str) -> None:
    text, expected = META[shape]
    found = [(f.name, f.value, f.scope) for f in read_metadata("submission.json", text.encode())]
    for item in expected:
        assert item in found


def test_broken_metadata_says_so_and_sound_metadata_does_not() -> None:
    names = [f.name for f in read_metadata("submission.json", b'{"a": 1,}')]
    assert "json_error" in names
    assert "json_error" not in [f.name for f in read_metadata("submission.json", '\ufeff{"a": 1}'.encode())]


@pytest.mark.parametrize(
    "key", ["baseline_bpb", "delta_vs_leaderboard_bpb", "ttt_gain_bpb", "comparison_baseline_bpb"]
)
def test_other_peoples_figures_are_not_facts(key: str) -> None:
    assert not [
        f for f in read_metadata("submission.json", f'{{"{key}": 1.1}}'.encode()) if f.name == "val_bpb"
    ]


def test_target_tokens_are_scored_tokens_and_no_goal() -> None:
    facts = read_metadata("submission.json", b'{"seed_results": {"1": {"target_tokens": 47851520}}}')
    assert [(f.name, f.value) for f in facts] == [("val_tokens", 47_851_520.0)]


def test_a_zstd_label_is_no_deviation() -> None:
    found = quantity("int6_zstd_val_bpb")
    assert found is not None and found.statistic == ""
    std = quantity("val_bpb_std")
    assert std is not None and std.statistic == "std"


@pytest.mark.parametrize(
    ("name", "cell", "unit", "value"),
    [
        ("bytes_total", "15.38 MB", "", 15.38e6), ("bytes_total", "15.38 MiB", "", 15.38 * 2**20),
        ("bytes_total", "15,811,202", "bytes", 15_811_202.0), ("train_time_s", "599,912", "ms", 599.912),
        ("eval_time_s", "198,246ms", "", 198.246), ("step_avg_ms", "0.094 s", "", 94.0), ("model_params", "~32M", "", 32e6),
    ],
)  # fmt: skip
def test_cells(name: str, cell: str, unit: str, value: float) -> None:
    found = measure(name, cell, unit)
    assert found is not None and found[0] == pytest.approx(value)


@pytest.mark.parametrize("cell", ["-0.0123", "<16 MB", "yes", "93%"])
def test_cells_that_state_nothing(cell: str) -> None:
    assert measure("bytes_total", cell) is None


def test_tables_by_seed_by_metric_and_across() -> None:
    by_seed = "| Seed | val_bpb | Δ |\n|---|---|---|\n| 42 | 1.1141 | -0.01 |\n| **Mean** | **1.1145** | |\n"
    facts = list(read_readme("README.md", by_seed))
    assert ("val_bpb", 1.1141, "seed:42") in [(f.name, f.value, f.scope) for f in facts]
    assert ("val_bpb_mean", 1.1145) in [(f.name, f.value) for f in facts]
    assert len([f for f in facts if f.name.startswith("val_bpb")]) == 2
    across = "| Metric | Seed 1 | Seed 2 |\n|---|---|---|\n| val_bpb | 1.1 | 1.2 |\n"
    assert [(f.value, f.scope) for f in read_readme("README.md", across) if f.name == "val_bpb"] == [
        (1.1, "seed:1"),
        (1.2, "seed:2"),
    ]
    plain = "Seed TTT BPB Artifact Size\n1337 1.1144 15.38 MB\n42 1.1141 15.12 MB\n"
    assert ("bytes_total", 15.12e6, "seed:42") in [
        (f.name, f.value, f.scope) for f in read_readme("README.md", plain)
    ]


def test_tables_of_others_state_nothing() -> None:
    text = (
        "# X\n\n## Comparison\n\n| Run | val_bpb |\n|---|---|\n| Baseline | 1.2244 |\n| PR 549 | 1.1194 |\n"
    )
    assert list(read_readme("README.md", text)) == []


@pytest.mark.parametrize(
    "line",
    [
        "improves val_bpb 1.2244 over the baseline",
        "an artifact limit of 16 MB",
        "31 levels instead of 63 (INT6)",
        "a gap of 0.007 BPB",
    ],
)
def test_sentences_that_state_nothing(line: str) -> None:
    assert [f for f in read_readme("README.md", f"# X\n\n{line}\n") if not f.name.startswith("claim")] == []


def test_a_loss_before_the_score_is_not_the_score() -> None:
    facts = read_readme("README.md", "exact: `final val_loss:1.88884778 val_bpb:1.11868501`\n")
    assert [f.value for f in facts if f.name == "val_bpb"] == [1.11868501]
