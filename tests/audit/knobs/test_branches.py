"""A log line that one side of a test alone prints is a condition on knobs; other papers or the default give the value."""

from __future__ import annotations

import pytest

from audit.knobs.branches import Condition, settled
from tests.audit.knobs.test_knobs import knobs, value

SCRIPT = """
import os
class Args:
    order = int(os.environ.get("CACHE_ORDER", "12"))
    steps = int(os.environ.get("SLOT_STEPS", "0"))
    mode = os.environ.get("EVAL_MODE", "sliding")
args = Args()
def main():
    if args.order >= 2 and stride > 0:
        print(f"two passes, orders up to {args.order}")
    elif args.mode == "sliding":
        print("one pass along the windows")
    else:
        print("plain evaluation of blocks")
    if not args.steps:
        print("nothing is fitted to windows")
    else:
        print("a vector is fitted to windows")
main()
"""
LAUNCH = {"run.sh": "case $1 in\nsmoke)\n  CACHE_ORDER=0 torchrun train_gpt.py\n  ;;\nesac\n"}


def test_what_a_log_prints_beats_a_command_for_something_else():
    assert value(knobs(LAUNCH, script=SCRIPT), "CACHE_ORDER") == ("0", "command")
    found = knobs(LAUNCH | {"train.log": "two passes, orders up to 12\n"}, script=SCRIPT)
    assert value(found, "CACHE_ORDER") == ("12", "log")


def test_a_stated_value_that_meets_the_condition_is_the_value():
    said = {"README.md": "```\nCACHE_ORDER=7 torchrun train_gpt.py\n```"}
    found = knobs(LAUNCH | said | {"train.log": "two passes, orders up to 7\n"}, script=SCRIPT)
    assert value(found, "CACHE_ORDER") == ("7", "log")
    said = {"README.md": "```\nSLOT_STEPS=24 torchrun train_gpt.py\n```"}
    found = knobs(said | {"train.log": "a vector is fitted to windows\n"}, script=SCRIPT)
    assert value(found, "SLOT_STEPS") == ("24", "log")


def test_the_other_side_of_a_test_shows_that_it_failed():
    found = knobs({"train.log": "plain evaluation of blocks\nnothing is fitted to windows\n"}, script=SCRIPT)
    assert value(found, "SLOT_STEPS") == ("0", "log")
    # `order >= 2 and …` may have failed by its other part; `mode == "sliding"` may not.
    assert found.lookup("CACHE_ORDER") is None and found.lookup("EVAL_MODE") is None
    said = {"README.md": "```\nEVAL_MODE=blocks torchrun train_gpt.py\n```", "other.sh": "EVAL_MODE=sliding python train_gpt.py\n"}
    found = knobs(said | {"train.log": "plain evaluation of blocks\n"}, script=SCRIPT)
    assert value(found, "EVAL_MODE") == ("blocks", "log")


def test_a_log_of_two_runs_that_took_both_sides_shows_nothing():
    both = {"train.log": "nothing is fitted to windows\na vector is fitted to windows\n"}
    assert knobs(both, script=SCRIPT).lookup("SLOT_STEPS") is None


def test_a_name_with_two_values_tells_nothing():
    script = SCRIPT.replace("    if not args.steps:", "    use = args.steps\n    use = other()\n    if not use:")
    assert knobs({"train.log": "nothing is fitted to windows\n"}, script=script).lookup("SLOT_STEPS") is None


@pytest.mark.parametrize(
    ("op", "other", "default", "expected"),
    [(">=", 2, "12", "12"), (">=", 2, "0", "2"), (">", 0, "0", "1"), ("<", 3, "1", "1"), ("on", None, "0", "1"),
     ("on", None, "False", "True"), ("off", None, "1", "0"), ("==", "lora", "full", "lora"), ("!=", 0, "0", None), ("==", 0, "0.0", "0.0")],
)  # fmt: skip
def test_without_a_statement_the_default_counts_and_else_the_nearest_value(op, other, default, expected):
    assert settled([Condition("X", op, other)], [], default) == expected


MODES = """case $1 in
smoke)
  CACHE_ORDER=0 torchrun train_gpt.py ;;
full)
  torchrun train_gpt.py ;;
seed)
  SEED=2 torchrun train_gpt.py ;;
esac
"""


def test_ways_of_a_run_script_that_leave_a_knob_alone_speak_for_its_default():
    found = knobs({"run.sh": MODES}, script=SCRIPT).lookup("CACHE_ORDER")
    assert found is not None and found.value == "12" and found.ambiguous
    # Commands in a row are steps of one run; what is exported holds for all.
    steps = "torchrun train_gpt.py\nCACHE_ORDER=0 torchrun train_gpt.py\n"
    assert value(knobs({"run.sh": steps}, script=SCRIPT), "CACHE_ORDER") == ("0", "command")
    exported = knobs({"run.sh": "export CACHE_ORDER=0\n" + MODES}, script=SCRIPT).lookup("CACHE_ORDER")
    assert exported is not None and exported.value == "0" and not exported.ambiguous


def test_a_command_that_a_comment_sets_aside_leaves_the_default_to_the_others():
    block = "```bash\n# Seed 42\ntorchrun train_gpt.py\n\n# Windows only, for ablation\nCACHE_ORDER=0 \\\ntorchrun train_gpt.py\n```"
    assert value(knobs({"README.md": block}, script=SCRIPT), "CACHE_ORDER") == ("12", "command")
    alone = block.replace("# Seed 42\ntorchrun train_gpt.py\n", "")
    assert value(knobs({"README.md": alone}, script=SCRIPT), "CACHE_ORDER") == ("0", "command")


def test_a_script_that_tries_out_whether_everything_runs_says_least():
    scripts = {"run_8xh100.sh": "CACHE_ORDER=4 torchrun train_gpt.py\n", "run_smoke_1gpu.sh": "CACHE_ORDER=0 python train_gpt.py\n"}
    found = knobs(scripts, script=SCRIPT).lookup("CACHE_ORDER")
    assert found is not None and found.value == "4" and not found.ambiguous
    del scripts["run_8xh100.sh"]
    assert value(knobs(scripts, script=SCRIPT), "CACHE_ORDER") == ("0", "command")


@pytest.mark.parametrize(
    ("lead", "wanted"),
    [
        ("All values are baked in. Override with env vars if needed:", "12"),
        ("To disable the cache and get the plain model only:", "12"),
        ("**Optional:** without the cache", "12"),
        ("For a quick 1-GPU smoke run on the template:", "12"),
        # What the run itself was started with may be called an override too.
        ("With env overrides for the submission configuration:", "0"),
        ("Training command (only this override differs from the other one):", "0"),
        ("", "0"),
    ],
)
def test_a_command_that_the_line_before_it_sets_aside(lead, wanted):
    readme = f"```bash\ntorchrun train_gpt.py\n```\n\n{lead}\n\n```bash\nCACHE_ORDER=0 torchrun train_gpt.py\n```\n"
    assert value(knobs({"README.md": readme}, script=SCRIPT), "CACHE_ORDER") == (wanted, "command")
    after_a_heading = readme.replace(f"{lead}\n", f"{lead}\n\n## Running\n")
    assert value(knobs({"README.md": after_a_heading}, script=SCRIPT), "CACHE_ORDER") == ("0", "command")
    alone = readme[readme.index(lead or "```bash\nC") :]
    assert value(knobs({"README.md": alone}, script=SCRIPT), "CACHE_ORDER") == ("0", "command")


@pytest.mark.parametrize(
    "reader",
    ["_E=os.environ.get", "_E = lambda k, d: os.environ.get(k, d)", "def _E(k, d):\n    found = os.environ.get(k, d)\n    return found",
     "import sys;_E=os.getenv;V=1"],
)  # fmt: skip
def test_the_scripts_own_reader_of_the_environment_is_known(reader):
    script = f"import os\n{reader}\nsteps = int(_E('SLOT_STEPS', '16'))\nother = call('NO_KNOB', '1')\n"
    found = knobs({"README.md": "```\nSLOT_STEPS=0 NO_KNOB=0 torchrun train_gpt.py\n```"}, script=script)
    assert found.declared["SLOT_STEPS"].default == "16" and "NO_KNOB" not in found.declared
    assert value(found, "SLOT_STEPS") == ("0", "command")


@pytest.mark.parametrize(("elsewhere", "wanted"), [("## Ablation plan", "4"), ("## Settings", "0")])
def test_settings_listed_for_ablations_leave_the_default_to_the_plain_run(elsewhere, wanted):
    readme = f"{elsewhere}\n\n```bash\nCACHE_ORDER=0   # no cache\n```\n\n## Running\n\n```bash\ntorchrun train_gpt.py\n```\n"
    script = 'import os\norder = int(os.environ.get("CACHE_ORDER", "4"))\n'
    found = knobs({"README.md": readme}, script=script).lookup("CACHE_ORDER")
    assert found is not None and found.value == wanted


def test_switches_listed_for_ablations_alone_are_no_statement_about_the_run():
    listed = "## Ablation variables\n\n```bash\nCACHE_ORDER=0   # no cache\n```\n"
    assert knobs({"README.md": listed}, script=SCRIPT).lookup("CACHE_ORDER") is None
    command = listed.replace("   # no cache", " torchrun train_gpt.py")
    assert value(knobs({"README.md": command}, script=SCRIPT), "CACHE_ORDER") == ("0", "command")


@pytest.mark.parametrize(
    ("prose", "wanted"),
    [
        ("- `CACHE_ORDER=0` to re-enable the plain model", None),
        ("Set `CACHE_ORDER=0` to disable the cache.", None),
        ("To turn it off: `CACHE_ORDER=0`.", None),
        ("The cache is switched off (`CACHE_ORDER=0`), which made it faster to enable everything.", "0"),
        ("We ran `CACHE_ORDER=0`; see below for how to enable adapters: `OTHER=1`", "0"),
    ],
)
def test_prose_that_says_how_to_have_it_otherwise_is_no_statement_about_the_run(prose, wanted):
    found = knobs({"README.md": f"# Title\n\n{prose}\n"}, script=SCRIPT).lookup("CACHE_ORDER")
    assert (found.value if found else None) == wanted


PASSED = """
import os
class Args:
    adapt = bool(int(os.environ.get("ADAPT_FIRST", "0")))
args = Args()
def main():
    say("training is over")
    if args.adapt:
        say("adapts to the stream first")
        adapt(model)
    tidy(model)
    say("writes the artifact")
main()
"""
ORDERED = {"README.md": "```\nADAPT_FIRST=1 torchrun train_gpt.py\n```"}


@pytest.mark.parametrize(
    ("log", "script", "wanted"),
    [
        ("training is over\nwrites the artifact\n", PASSED, ("0", "log")),
        ("training is over\nadapts to the stream first\nwrites the artifact\n", PASSED, ("1", "log")),
        # The log ends before, or begins after, the place: it shows nothing.
        ("training is over\n", PASSED, ("1", "command")),
        ("writes the artifact\n", PASSED, ("1", "command")),
        # The test may have failed by its other part, and another call may print elsewhere.
        ("training is over\nwrites the artifact\n", PASSED.replace("if args.adapt:", "if args.adapt and good:"), ("1", "command")),
        ("training is over\nwrites the artifact\n", PASSED.replace('say("adapts', 'tell("adapts'), ("1", "command")),
    ],
)  # fmt: skip
def test_a_log_that_passed_a_branch_without_its_line_shows_that_it_was_closed(log, script, wanted):
    assert value(knobs(ORDERED | {"train.log": log}, script=script), "ADAPT_FIRST") == wanted
    elsewhere = {"submission.json": '{"val_bpb": 1.1234}'}
    if wanted == ("0", "log"):
        # A log of other runs says nothing about the one that is reported.
        found = knobs(ORDERED | elsewhere | {"train.log": log + "final val_bpb: 1.9876\n"}, script=script)
        assert value(found, "ADAPT_FIRST") == ("1", "command")
