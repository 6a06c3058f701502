"""Which printed figure counts: the one that the papers state, found by the text before it in the log."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE
from audit.trace.headline import label_of

# A plain evaluation is printed, then the model is tuned on the same tokens and evaluated again.
SCRIPT = (
    PRELUDE
    + """\
def show(text):
    print(text)

plain = evaluate(model, val)
show(f"final_sliding_exact val_loss:{plain:.6f} val_bpb:{plain:.6f}")
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for i in range(0, val.numel() - 1, 1024):
    opt.zero_grad()
    nll(model, val[None, i : i + 1024], val[None, i + 1 : i + 1025]).mean().backward()
    opt.step()
tuned = evaluate(model, val)
show(f"final_tuned_exact val_loss:{tuned:.6f} val_bpb:{tuned:.6f}")
"""
)
PLAIN = 'print(f"final_sliding_exact val_bpb:{evaluate(model, val):.6f}")\n'
STATED = "final_sliding_exact val_loss:1.900000 val_bpb:1.155827\n"
WORSE = "final_tuned_exact val_loss:1.990000 val_bpb:1.192201\n"
BETTER = "final_tuned_exact val_loss:1.790000 val_bpb:1.092201\n"


def judged(log: str, stated: str = "1.155827"):
    files = {"train_gpt.py": SCRIPT, "train_seed1.log": log, "submission.json": f'{{"val_bpb": {stated}}}'}
    return audit_files(text_files(files, "train_gpt.py"), Options())


def accused(log: str, stated: str = "1.155827") -> set[str]:
    return {f.rule for f in judged(log, stated).findings if f.severity == "violation" and f.rule.startswith("F")}


def test_without_a_log_every_printed_figure_counts():
    assert accused("nothing was printed\n") == {"F1"}


def test_a_figure_that_the_run_did_not_print_is_a_note():
    found = judged(STATED)
    assert not [f for f in found.findings if f.severity == "violation" and f.rule == "F1"]
    [note] = [f for f in found.findings if f.rule == "F1"]
    assert note.severity == "note" and "the reported figure does not rest on it" in note.message
    assert found.ttt["kind"] == "train-then-score"  # it is there, and it is named


def test_a_stated_score_that_no_line_comes_near_rules_nothing_out():
    # The log was cut off before the figure that the papers state.
    assert accused(STATED, "0.832925") == {"F1"}
    # Another figure of the metadata is of another evaluation.
    files = {"train_gpt.py": SCRIPT, "train_seed1.log": STATED}
    files["submission.json"] = '{"val_bpb": 1.155827,\n "x": 1,\n "y": 1,\n "pre_quant_val_bpb": 0.832925}'
    found = audit_files(text_files(files, "train_gpt.py"), Options())
    assert not [f for f in found.findings if f.severity == "violation" and f.rule == "F1"]


def test_a_figure_under_a_name_of_its_own_is_a_figure():
    log = STATED + "tuned_mix_bpb:0.832925\n"
    files = {"train_gpt.py": SCRIPT.replace("final_tuned_exact val_loss:{tuned:.6f} val_bpb", "tuned_mix_bpb")}
    files |= {"train_seed1.log": log, "README.md": "We reach `tuned_mix_bpb` 0.832925."}
    found = audit_files(text_files(files, "train_gpt.py"), Options())
    assert (0.832925, "tuned") in {(f.value, f.label) for f in found.facts if f.name == "val_bpb"}
    assert "F1" in {f.rule for f in found.findings if f.severity == "violation"}


def test_with_a_setting_overridden_the_log_is_of_another_run():
    files = {"train_gpt.py": SCRIPT, "train_seed1.log": STATED, "submission.json": '{"val_bpb": 1.155827}'}
    found = audit_files(text_files(files, "train_gpt.py"), Options(env={"WORLD_SIZE": "8"}))
    assert "F1" in {f.rule for f in found.findings if f.severity == "violation"}


def test_a_worse_figure_beside_the_stated_one_is_a_diagnostic():
    assert accused(STATED + WORSE) == set()


def test_a_better_figure_is_put_forward_by_whoever_prints_it():
    assert accused(STATED + BETTER) == {"F1"}


def test_what_counts_for_a_better_figure_alone_says_which_figure_that_is():
    (found,) = [f for f in judged(STATED + BETTER).findings if f.rule == "F1"]
    assert "the headline does not rest on it, but train_seed1.log:2 prints 1.092201, which is better" in found.message
    assert (found.trace[-1].path, found.trace[-1].line) == ("train_seed1.log", 2)


@pytest.mark.parametrize(
    ("log", "stated"), [(STATED + BETTER, "1.092201"), (BETTER, "1.092201"), ("nothing was printed\n", "1.155827"), (STATED + WORSE, "1.155827")]
)
def test_what_the_headline_rests_on_is_not_said_to_be_beside_it(log: str, stated: str):
    assert not any("headline" in f.message for f in judged(log, stated).findings)


def test_an_update_before_both_figures_bears_on_the_headline():
    tuned = SCRIPT[SCRIPT.index("opt = torch.optim.SGD") : SCRIPT.index("tuned = evaluate")]
    script = SCRIPT.replace(tuned, "").replace("plain = evaluate", tuned + "plain = evaluate")
    files = {"train_gpt.py": script, "train_seed1.log": STATED + BETTER, "submission.json": '{"val_bpb": 1.155827}'}
    found = [f for f in audit_files(text_files(files, "train_gpt.py"), Options()).findings if f.rule == "F1"]
    assert found and all(f.severity == "violation" and "headline" not in f.message for f in found)


def test_the_tuned_figure_is_accused_when_it_is_the_stated_one():
    assert accused(STATED + BETTER, "1.092201") == {"F1"}


def test_a_log_of_another_program_rules_nothing_out():
    assert accused("other_label val_loss:1.9 val_bpb:1.155827\n") == {"F1"}


@pytest.mark.parametrize(
    ("text", "label", "whole"),
    [
        ("final_int6_sliding_window_exact val_loss:", "final int sliding window exact", True),
        ("legal_ttt val_bpb:", "legal ttt", True),
        ("step:0/20000 ", "step", False),
        ("ttt_sliding:done val_loss=", "ttt sliding done", True),
    ],
)
def test_the_label_is_what_stands_before_the_figure(text, label, whole):
    assert label_of(text) == (label, whole)
UNREAD = (
    PRELUDE
    + """\
import measuring
plain = evaluate(model, val)
print(f"final_sliding_exact val_loss:{plain:.6f} val_bpb:{plain:.6f}")
found = measuring.all_of(model)
print(f"final_measured_exact val_loss:{found.loss:.6f} val_bpb:{found.bpb:.6f}")
"""
)


@pytest.mark.parametrize(
    ("label", "verdict"),
    [("final_measured_exact", "undetermined"), ("final_sliding_exact", "clean"), ("final_of_another_script", "clean")],
)
def test_a_stated_score_that_was_not_followed_leaves_the_run_undetermined(label, verdict):
    log = STATED.replace("1.155827", "1.175827") + f"{label} val_loss:1.900000 val_bpb:1.155827\n"
    files = {"train_gpt.py": UNREAD, "train_seed1.log": log, "submission.json": '{"val_bpb": 1.155827}'}
    found = audit_files(text_files(files, "train_gpt.py"), Options())
    assert found.verdict == verdict
    assert ("prints the stated score" in found.reason) is (verdict == "undetermined")


@pytest.mark.parametrize(
    "printed, judged_by",
    [("final_zstd_roundtrip_exact", set()), ("final_tuned_roundtrip_exact", {"F1"}), ("final_zstd_tuned_exact", {"F1"})],
)
def test_a_label_outlives_its_compressor(printed, judged_by):
    # The script's label names zlib, the log of an earlier version zstd; any other word means another figure.
    script = SCRIPT.replace("final_sliding_exact", "final_zlib_roundtrip_exact")
    files = {"train_gpt.py": script, "train_seed1.log": STATED.replace("final_sliding_exact", printed)}
    files["submission.json"] = '{"val_bpb": 1.155827}'
    found = audit_files(text_files(files, "train_gpt.py"), Options())
    assert {f.rule for f in found.findings if f.severity == "violation" and f.rule.startswith("F")} == judged_by


@pytest.mark.parametrize(
    "line, verdict",
    [
        ("ngram_oracle_final_score val_loss:0.050000 val_bpb:0.030000\n", "undetermined"),  # by no format string of the script
        ("ngram_oracle_final_score val_loss:1.850000 val_bpb:1.110000\n", "clean"),  # a score that others reach
        ("final_swept_exact val_loss:0.500000 val_bpb:0.300000\n", "violation"),  # another version's word
        ("[rank 0] final_tuned_exact val_loss:0.500000 val_bpb:0.300000\n", "violation"),
    ],
)
def test_a_score_that_nothing_of_the_submission_prints_is_of_another_program(line, verdict):
    files = {"train_gpt.py": PRELUDE + PLAIN if verdict != "violation" else SCRIPT, "train_seed1.log": line}
    files["submission.json"] = f'{{"val_bpb": {line.split("val_bpb:")[1].strip()}}}'
    found = audit_files(text_files(files, "train_gpt.py"), Options())
    assert found.verdict == verdict, found.reason
    assert ("another program ran" in found.reason) is (verdict == "undetermined")


def test_a_text_that_is_wholly_filled_in_could_be_any_line():
    script = PRELUDE + 'tag = "plain"\nloss = evaluate(model, val)\nprint(f"{tag} val_loss:{loss:.4f} val_bpb:{loss:.4f}")\n'
    files = {"train_gpt.py": script, "train_seed1.log": "ngram_oracle_final_score val_loss:0.0500 val_bpb:0.0300\n"}
    files["submission.json"] = '{"val_bpb": 0.0300}'
    assert audit_files(text_files(files, "train_gpt.py"), Options()).verdict == "clean"


FITTED = (
    PRELUDE
    + """\
import math
total, count = torch.zeros(()), torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for i in range(0, val.numel() - 1, 1024):
    x, y = val[None, i : i + 1024], val[None, i + 1 : i + 1025]
@@
    with torch.no_grad():
        total += nll(model, x, y).sum()
    count += 3.6 * y.numel()
"""
)
FIT = "    opt.zero_grad()\n    nll(model, x, y).mean().backward()\n    opt.step()"


@pytest.mark.parametrize(
    "figure",
    [
        "k = 1 / math.log(2) / n_bytes\nbpb = total.item() * k",
        "k = 1.0 / (math.log(2) * n_bytes)\nbpb = k * total.item()",
        "bpb = total.item() * (1 / 0.6931471805599453 / n_bytes)",
        "k = 1.4426950408889634 / n_bytes\nbpb = total.item() * k",
        "k = 1 / (math.log(2) * count)\nbpb = (total * k).item()",
        "k = 1 / math.log(2) / count\nbpb = (total * k).item()",
    ],
)
def test_a_figure_may_be_a_product_with_a_reciprocal(figure):
    def found(script):
        return {f.rule for f in audit_files(text_files({"train_gpt.py": f"{script}{figure}\nprint(f'val_bpb:{{bpb:.4f}}')\n"}, "train_gpt.py"), Options()).findings if f.severity == "violation"}

    assert "F2" in found(FITTED.replace("@@", FIT))
    assert not found(FITTED.replace("@@\n", ""))


# A score-first pass, and a second one with weights averaged along the way.
TWO_FIGURES = (
    PRELUDE
    + """\
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for s in range(0, val.numel() - 1, 1024):
    l = nll(model, val[None, s : s + 1024], val[None, s + 1 : s + 1025])
    total += l.detach().sum()
    opt.zero_grad()
    l.mean().backward()
    opt.step()
running = total.item() / 0.6931471805599453 / n_bytes
again = evaluate(model, val)
"""
)


def of_a_bare_script(lines: str, **files: str) -> set[str]:
    found = audit_files(text_files({"train_gpt.py": TWO_FIGURES + lines, **files}, "train_gpt.py"), Options())
    return {f.rule for f in found.findings if f.severity == "violation" and f.rule.startswith("F")}


ASIDE = 'print(f"tokens already trained on:{again:.4f} (a diagnostic)")\nprint(f"final val_bpb:{running:.4f}")\n'


@pytest.mark.parametrize(
    "lines",
    [
        ASIDE,
        'print(f"adapted:{again:.4f} val_bpb:{running:.4f}")\n',
        'print(f"val_bpb:{running:.4f} fit of what it learned:{again:.4f}")\n',
        'print(f"first look:{again:.4f}")\nprint(f"val_bpb:{running:.4f} adapted:{again:.4f}")\n',
    ],
)
def test_a_remark_is_no_figure_where_nothing_is_stated(lines):
    assert not of_a_bare_script(lines)


@pytest.mark.parametrize(
    "lines",
    [
        'print(f"running:{running:.4f}")\nprint(f"final val_bpb:{again:.4f}")\n',  # the second one is the figure
        'print(f"final val_bpb:{running:.4f}")\nprint(f"adapted:{again:.4f}")\n',  # it comes last
        'print(f"final score:{again:.4f}")\nprint(f"val_bpb:{running:.4f}")\n',  # it is called a score
        'print(f"running:{running:.4f} val_bpb:{again:.4f}")\n',  # it bears the name
        'print(f"first bpb:{running:.4f} val_bpb:{again:.4f}")\n',  # both bear it
        'print(f"val_bpb:{running:.4f} ttt score:{again:.4f}")\n',  # it is called a score
        'print(f"val_bpb:{running:.4f} adapted:{min(running, again):.4f} {again:.4f}")\n',  # one has no words
        'print(f"adapted:{again:.4f}")\nprint(f"val_bpb:{running:.4f} {again:.4f}")\n',
        'print(f"adapted:{again:.4f}")\nprint(f"val_bpb:{min(running, again):.4f}")\n',
    ],
)
def test_a_figure_that_may_be_put_forward_counts(lines):
    assert of_a_bare_script(lines)


@pytest.mark.parametrize("lines", [ASIDE, 'print(f"adapted:{again:.4f} val_bpb:{running:.4f}")\n'])
def test_where_a_score_is_stated_no_words_set_a_figure_aside(lines):
    assert of_a_bare_script(lines, **{"submission.json": '{"val_bpb": 1.05}'})
