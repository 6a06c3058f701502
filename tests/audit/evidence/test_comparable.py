"""Figures are held against each other only where they speak of the same thing."""

from __future__ import annotations

import json

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.evidence.claims import contradictions
from audit.evidence.logs import read_log
from audit.evidence.metadata import read_metadata
from audit.evidence.readiness import package_gaps
from audit.evidence.readme import read_readme
from audit.evidence.runs import view

SEEDS = {"1": {"val_bpb": 1.0661}, "2": {"val_bpb": 1.0649}, "3": {"val_bpb": 1.0662}}  # mean 1.06573, deviation 0.00072


def found(meta: dict[str, object] | None = None, readme: str = "", **logs: str) -> list[tuple[str, str]]:
    facts = []
    if meta is not None:
        facts += read_metadata("r/submission.json", json.dumps(meta, indent=1).encode())
    facts += read_readme("r/README.md", readme)
    for name, text in logs.items():
        facts += read_log(f"r/{name}.log", text.encode())
    return [(c.kind, c.message) for c in contradictions(view(facts), None, "r")]


def kinds(*args: object, **logs: str) -> set[str]:
    return {k for k, _ in found(*args, **logs)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"val_bpb": 1.0607}, {"mean"}),
        ({"val_bpb": 1.06573}, set()),
        ({"val_bpb": 1.0657300}, set()),
        ({"val_bpb": 1.0661}, set()),  # the best seed's
        ({"val_bpb_mean": 1.06573, "val_bpb_std": 0.00072}, set()),
        ({"val_bpb_mean": 1.06573, "val_bpb_std": 0.00210}, {"std"}),
        ({"val_bpb_std": 0.00070}, set()),  # 0.0007, of one digit
        # other evaluations, runs and parts, of which no seed is stated
        ({"sdpa_mean_bpb": 1.0902, "sdpa_bpb_std": 0.0009}, set()),
        ({"rerun": {"rerun_mean_bpb": 1.0710, "rerun_std_bpb": 0.0031}}, set()),
        ({"mixture": {"mix_bpb_mean": 0.9727, "mix_bpb_std": 0.0021}}, set()),
        ({"val_bpb_canonical_bytes_per_token": 3.7266}, set()),
        ({"pre_quant_val_bpb_mean": 1.0512}, set()),
        ({"three_seed_mean_bpb_final_seed1_2_7": 1.0712}, set()),
    ],
)
def test_a_mean_is_recomputed_from_the_seeds_of_its_own_name(more: dict[str, object], said: set[str]) -> None:
    assert kinds({"seed_results": SEEDS, **more}) == said


@pytest.mark.parametrize(("mean", "said"), [(1.0711, set()), (1.0653, {"mean"})])
def test_a_rerun_has_its_own_seeds(mean: float, said: set[str]) -> None:
    again = {"1": {"val_bpb": 1.0712}, "2": {"val_bpb": 1.0710}, "3": {"val_bpb": 1.0711}}
    meta = {"val_bpb": 1.06573, "seed_results": SEEDS, "rerun": {"rerun_mean_bpb": mean, "seed_results": again}}
    assert kinds(meta) == said


@pytest.mark.parametrize(("variant", "said"), [(1.3201, set()), (1.3150, {"mean"})])
def test_each_of_several_scores_has_its_own_mean(variant: float, said: set[str]) -> None:
    seeds = {str(s): {"control_bpb": 1.3217 + s * 1e-5, "variant_bpb": 1.3201 + s * 1e-5} for s in range(3)}
    assert kinds({"control_bpb_mean": 1.32171, "variant_bpb_mean": variant, "seed_results": seeds}) == said


def test_a_plain_mean_may_be_of_any_of_the_seeds_scores() -> None:
    seeds = {str(s): {"val_bpb": 0.4012 + s / 100, "sliding_bpb": 0.9812 + s / 100} for s in range(3)}
    assert kinds({"val_bpb": 0.9912, "seeds": seeds}) == set()
    assert kinds({"val_bpb": 0.9512, "seeds": seeds}) == {"mean"}


def test_a_run_whose_key_is_no_seed_belongs_to_the_mean() -> None:
    seeds = {"42": {"val_bpb": 0.7852}, "1337": {"val_bpb": 0.7846}, "2024_5pct": {"val_bpb": 0.7861}}
    assert kinds({"mean_val_bpb": 0.7857, "std_val_bpb": 0.0018, "seeds": seeds}) == set()
    del seeds["2024_5pct"]
    assert kinds({"mean_val_bpb": 0.7857, "std_val_bpb": 0.0018, "seeds": seeds}) == {"mean", "std"}


def test_a_seed_of_many_digits_is_one() -> None:
    seeds = {"1": {"val_bpb": 1.1652}, "2884431328": {"val_bpb": 1.1667}, "7": {"val_bpb": 1.1709}}
    assert kinds({"mean_val_bpb": 1.1676, "seed_results": seeds}) == set()


@pytest.mark.parametrize(
    ("readme", "said"),
    [
        ("# X\n\n**val_bpb: 1.0712** (3-seed mean)\n", {"score"}),
        ("# X — val_bpb 1.0712\n", {"score"}),
        ("# X\n\n**val_bpb: 1.0657** (3-seed mean)\n", set()),
        ("# X\n\nPre-quant eval at stop: `val_bpb:1.0512`\n", set()),
        ("# X\n\nMean sliding BPB (no TTT): 1.0822\n", set()),
        ("# X\n\nRelative to the earlier record of\n`1.0822` BPB this single run is:\n", set()),
        ("# X\n\nIt got val_bpb 1.0822 at step 4000.\n", set()),
        ("# X\n\n**val_bpb: 1.0712**\n\nOf the first seed: 1.06573\n", {"score"}),
        ("# X\n\n| Seed | Pre-quant BPB | Post-TTT BPB |\n|---|---|---|\n| Mean | 1.0832 | 1.0657 |\n", set()),
        ("# X\n\n| Seed | val_bpb |\n|---|---|\n| **Mean** | 1.0832 |\n", {"score"}),
    ],
)
def test_a_headline_is_held_against_a_headline(readme: str, said: set[str]) -> None:
    assert kinds({"val_bpb": 1.06573}, readme) == said


def test_a_figure_that_the_other_paper_states_anywhere_contradicts_nothing() -> None:
    readme = "# X\n\n**val_bpb: 1.0712** (3-seed mean)\n\nThe submitted artifact scores 1.06573.\n"
    script = "print('see the papers')\n"

    def run(text: str) -> list[str]:
        files = {"train_gpt.py": script, "README.md": text, "submission.json": '{"val_bpb": 1.06573}'}
        audited = audit_files(text_files(files, "train_gpt.py"), Options(rules=frozenset({"E4"})))
        return [f.message for f in audited.findings]

    assert run(readme) == []
    assert len(run(readme.replace("1.06573", "best"))) == 1


LOG = "seed:{seed}\nmodel_params:1000\nTotal submission size int6: {total} bytes\nstopping_early: cap train_time:599000ms step:6000/9000\n{more}final val_loss:1.88 val_bpb:{bpb}\n"


def log(seed: int = 1, bpb: float = 1.1134, total: int = 15_000_000, more: str = "") -> str:
    return LOG.format(seed=seed, bpb=bpb, total=total, more=more)


ROW = "# X\n\n| Seed | Steps | val_bpb | Artifact |\n|---|---|---|---|\n| 1 | {steps} | {bpb} | {size} |\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train_seed1", log(bpb=1.1199), {"score"}),
        ("train_baseline_seed1", log(bpb=1.1199), set()),  # a log of another variant
        ("train_seed2", log(bpb=1.1199), set()),  # the name names another seed
        ("train_seed1", log(bpb=1.11340012), set()),
    ],
)
def test_a_seeds_score_is_held_against_its_own_log(name: str, text: str, said: set[str]) -> None:
    assert kinds({"seed_results": {"1": {"val_bpb": 1.1134}}}, "", **{name: text}) == said


def test_a_score_in_a_line_that_is_not_understood_is_printed() -> None:
    def run(more: str) -> list[str]:
        files = {
            "train_gpt.py": "print(1)\n",
            "submission.json": '{"seed_results": {"1": {"val_bpb": 0.992908}}}',
            "train_seed1.log": log(bpb=1.0733, more=more),
        }
        audited = audit_files(text_files(files, "train_gpt.py"), Options(rules=frozenset({"E4"})))
        return [f.message for f in audited.findings]

    assert len(run("")) == 1
    assert run("ppm_native_submission: 0.992908\n") == []


@pytest.mark.parametrize(
    ("steps", "bpb", "size", "said"),
    [
        ("6,000", "1.1134", "15,000,000", set()),
        ("5,500", "1.1134", "15,000,000", {"steps"}),
        ("6,000", "1.1134", "15,400,000", {"size"}),
        ("6,000", "1.1134", "14,930,000", set()),  # without the code
        ("6,000", "1.1134", "14.31 MB", set()),  # MiB
        ("~5,800", "1.1134", "~15.4 MB", set()),
        ("6 000", "1.1134", "15 000 000", set()),
        ("5 500", "1.1134", "15 400 000", {"size", "steps"}),
        ("5,500", "1.1150", "15,400,000", {"score"}),  # a log that does not print the row's score is of another run
    ],
)  # fmt: skip
def test_a_row_is_held_against_the_log_that_prints_its_score(steps: str, bpb: str, size: str, said: set[str]) -> None:
    assert kinds({"val_bpb": 1.1134}, ROW.format(steps=steps, bpb=bpb, size=size), train_seed1=log()) == said


def test_a_readme_that_states_a_seed_twice_tells_of_two_runs() -> None:
    meta = {"val_bpb": 1.1134, "seed_results": {"1": {"val_bpb": 1.1134, "steps": 6000}}}
    first = "# X\n\n| Seed | Steps |\n|---|---|\n| 1 | 5,500 |\n"
    assert kinds(meta, first) == {"steps"}
    assert kinds(meta, first + "\n| Seed | Steps |\n|---|---|\n| 1 | 7,100 |\n") == set()


@pytest.mark.parametrize(
    ("readme", "said"),
    [
        ("# X\n\n| Metric | Value |\n|---|---|\n| Steps | 52 |\n| Wall clock | 90 s |\n", set()),  # of no seed: any run's
        ("# X\n\n- 950 steps, of a longer run\n", set()),
        ("# X\n\n| Seed | Steps | ms/step |\n|---|---|---|\n| 1 | 6,000 | 86.7 |\n", set()),  # a reserve
        ("# X\n\n- Static: 691ms/step, 869 steps\n- Other: 748ms/step, 803 steps\n", set()),  # 869 x 748 is no run's
        ("# X\n\n| Seed | Steps | ms/step |\n|---|---|---|\n| 1 | 7,801 | 83.0 |\n", {"arithmetic"}),
        ("# X\n\n- 3% magnitude pruning, with 1% more per retry\n- 2% prune per retry\n", set()),
        ("# X\n\nEveryone trains 22M parameters.\n", set()),
        ("# X\n\n- 33M parameters\n", {"parameters"}),
    ],
)
def test_figures_of_no_seed(readme: str, said: set[str]) -> None:
    meta = {"val_bpb": 1.1134, "step_stop": 650, "wallclock_seconds": 252.4, "model_params": 26_501_720}
    assert kinds(meta, readme) == said


def test_texts_that_are_no_readme_state_nothing_of_the_submission() -> None:
    meta = read_metadata("r/submission.json", b'{"val_bpb": 1.1134, "num_layers": 9}')
    for name, said in (("README.md", True), ("README_v3_draft.md", False), ("2026-03-19_Other.md", False)):
        text = "# X\n\n**val_bpb: 1.1250**\n\n- 11 layers\n"
        facts = [*meta, *read_readme(f"r/{name}", text)]
        assert bool(contradictions(view(facts), None, "r")) == said
    assert not contradictions(view([*meta, *read_readme("r/2026-03-19_Older/README.md", text)]), None, "r")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"logs": {"seed42_train_artifact": "train_seed42.log"}}', set()),
        ('{"artifact_size": "15.9 MB"}', {"bytes_total"}),
        ('{"artifact_size": "~15.9 MB"}', {"bytes_total"}),
        ('{"seed_results": {"1": {"scored_bytes": 151074499}}}', set()),
        ('{"bytes_per_token_of_val_bpb": 3.7266}', set()),
    ],
)
def test_what_a_key_of_the_metadata_states(text: str, names: set[str]) -> None:
    assert {f.name for f in read_metadata("submission.json", text.encode()) if not f.name.startswith("field.")} == names


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ('{"author": "a", "name": "b",\n "val_bpb": 40.4848}', ["val_bpb 40.4848 in submission.json is no plausible score"], 2),
        ('{"author": "a", "name": "b",\n "val_bpb": 0.0}', ["val_bpb 0.0 in submission.json is no plausible score"], 2),
        ('{"author": "a", "name": "b",\n "val_bpb": null}', ["val_bpb null in submission.json is no score"], 2),
        ('{"author": "a", "name": "b",\n "val_bpb": "TBD"}', ['val_bpb "TBD" in submission.json is no score'], 2),
        ('{"track": "x",\n "val_bpb": 1.1}', ["submission.json does not state author, name"], 1),
        ('{"author": "", "title": "b",\n "val_bpb": 1.1}', ["submission.json does not state author"], 1),
        ('{"author": "a",\n "name": "b"}', ["submission.json does not state val_bpb"], 1),
        ('{"authors": [{"name": "a"}], "submission_name": "b", "val_bpb": 1.1}', [], 0),
        ('{"authors": ["a"], "title": "b", "score": 1.1}', [], 0),
        ('{"github_id": "a", "name": "b", "bpb": 1.1}', [], 0),
        ('{"author": "a", "name": "b", "seed_results": {"1": {"val_bpb": 1.1}}}', [], 0),
    ],
)
def test_what_a_package_does_not_state(text: str, said: list[str], line: int) -> None:
    facts = list(read_metadata("r/submission.json", text.encode()))
    gaps = list(package_gaps(["r/README.md", "r/submission.json"], "r", facts, True))
    assert [g.message for g in gaps] == said
    assert all(g.fact is not None and g.fact.line == line for g in gaps)
