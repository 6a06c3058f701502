"""The reported configuration is found where people leave it, and contradictions are said to be such."""

from __future__ import annotations

import pytest

from audit.knobs import Knobs, alternatives, resolve
from audit.lower import lower
from audit.source import MemoryTree, SubmissionFiles

SCRIPT = """
import os, argparse
class Args:
    ttt_enabled = bool(int(os.environ.get("TTT_ENABLED", "0")))
    lr: float = float(os.environ.get("TTT_LEARNING_RATE", 1e-3))
    mode = os.getenv("EVAL_MODE", "sliding")
    iters = int(
        os.environ.get("ITERATIONS", "20000")
    )
    flag = _env_bool("SWITCH", False)
parser = argparse.ArgumentParser()
parser.add_argument("--chunk-size", "-c", type=int, default=32)
args = Args()
def main():
    use = args.ttt_enabled and True
    if use:
        print(f"adapting with {args.lr:.4f} now")
    print(f"start lr={args.lr}{f' using adapters rank 4' if args.mode == 'lora' else ''}")
main()
"""


def knobs(
    extra: dict[str, str], env: dict[str, str] | None = None, script: str = SCRIPT, **more: object
) -> Knobs:
    files = {f"r/{k}": v for k, v in extra.items()} | {"r/train_gpt.py": script}
    submission = SubmissionFiles(
        target="t", tree=MemoryTree(files), primary="r/train_gpt.py", paths=list(files), changed=list(files)
    )
    modules = {"r/train_gpt.py": lower(script, "r/train_gpt.py")}
    return resolve(submission, {"r/train_gpt.py": script}, env or {}, modules=modules, **more)  # type: ignore[arg-type]


def value(found: Knobs, name: str) -> tuple[str, str] | None:
    knob = found.lookup(name)
    return None if knob is None else (knob.value, knob.source)


def test_declarations_carry_default_and_the_name_that_dumps_use() -> None:
    found = knobs({}).declared
    assert (found["TTT_ENABLED"].default, found["TTT_ENABLED"].attr, found["TTT_ENABLED"].line) == (
        "0",
        "ttt_enabled",
        4,
    )
    assert (found["TTT_LEARNING_RATE"].default, found["TTT_LEARNING_RATE"].attr) == ("1e-3", "lr")
    assert (found["ITERATIONS"].default, found["ITERATIONS"].attr) == ("20000", "iters")
    assert found["EVAL_MODE"].default == "sliding"
    assert found["SWITCH"].default == "0"
    assert found["--chunk-size"].default == "32"


def test_a_knob_declared_twice_keeps_the_last_default() -> None:
    script = 'import os\na = os.environ.get("K", "1")\nb = os.environ.get("K", "2")\n'
    assert knobs({}, script=script).default("K") == "2"


def test_nobody_sets_a_knob_then_the_default_of_the_code_holds() -> None:
    assert knobs({"README.md": "A fine run."}).lookup("TTT_ENABLED") is None


@pytest.mark.parametrize(
    "readme",
    [
        "```bash\nTTT_ENABLED=1 torchrun --nproc_per_node=8 train_gpt.py\n```",
        "```\nexport TTT_ENABLED=1\ntorchrun train_gpt.py\n```",
        "```bash\nSEED=1 \\\n  TTT_ENABLED='1' \\\n# a note\n  torchrun train_gpt.py\n```",
        '```sh\nmodal run launch.py --extra-env "LN_SCALE=1;TTT_ENABLED=1;X=2"\n```',
        "Run `TTT_ENABLED=1 torchrun train_gpt.py`.",
    ],
)
def test_readme_commands(readme: str) -> None:
    assert value(knobs({"README.md": readme}), "TTT_ENABLED") == ("1", "command")


def test_a_command_for_another_script_says_nothing() -> None:
    extra = {"README.md": "```\nTTT_ENABLED=1 python other.py\n```", "other.py": "pass"}
    assert knobs(extra).lookup("TTT_ENABLED") is None


def test_commands_that_comments_set_apart_are_runs_of_their_own() -> None:
    """An experiment's switch is off in the others; steps of one run say nothing by silence."""
    script = "import os\nA = os.environ.get('CLUSTER', '0')\nB = os.environ.get('EVAL', '0')\n"
    block = "```bash\n# {}\nEVAL=1 torchrun train_gpt.py\n\n# {}\nCLUSTER=1 torchrun train_gpt.py\n```\n"
    apart = knobs({"README.md": block.format("Sequential", "Clustered experiment")}, script=script)
    assert apart.values["CLUSTER"].ambiguous and apart.values["EVAL"].ambiguous
    steps = knobs({"README.md": block.format("Train", "Evaluate")}, script=script)
    assert value(steps, "CLUSTER") == ("1", "command") and not steps.values["CLUSTER"].ambiguous


def test_python_blocks_are_not_commands() -> None:
    assert knobs({"README.md": "```python\nTTT_ENABLED=1\n```"}).lookup("TTT_ENABLED") is None


def test_options_after_the_script() -> None:
    found = knobs({"README.md": "```\npython train_gpt.py --chunk-size 64\n```"})
    assert value(found, "--chunk-size") == ("64", "command")


def test_shell_scripts_with_defaults_and_submission_json() -> None:
    assert value(knobs({"run.sh": 'export TTT_ENABLED="${TTT_ENABLED:-1}"\n'}), "TTT_ENABLED") == (
        "1",
        "command",
    )
    assert knobs({"run.sh": "export TTT_ENABLED=$FLAG\n"}).lookup("TTT_ENABLED") is None
    assert value(knobs({"submission.json": '{"env": {"TTT_ENABLED": 1}}'}), "TTT_ENABLED") == ("1", "command")
    assert knobs({"submission.json": '{"env": '}).lookup("TTT_ENABLED") is None


def test_a_launcher_in_python_sets_the_environment() -> None:
    launcher = 'import subprocess, os\nenv = {**os.environ, "TTT_ENABLED": "1"}\nsubprocess.run(["torchrun", "train_gpt.py"], env=env)\n'
    assert value(knobs({"go.py": launcher}), "TTT_ENABLED") == ("1", "command")


PRESETS = """\
import os, subprocess
PRESETS = {
    "@": {
        "LR": "0.5",
        "TTT_ENABLED": "1",
    },
    "wide": {
        "LR": "0.5",
    },
}
subprocess.run(["python", "train_gpt.py"], env={**os.environ, **PRESETS[name]})
"""


def test_a_preset_that_only_tries_out_whether_everything_runs() -> None:
    assert knobs({"go.py": PRESETS.replace("@", "micro_smoke")}).lookup("TTT_ENABLED") is None
    assert value(knobs({"go.py": PRESETS.replace("@", "deep")}), "TTT_ENABLED") == ("1", "command")
    # Nothing else stands beside it.
    alone = PRESETS.replace("@", "smoke").replace('    "wide": {\n        "LR": "0.5",\n    },\n', "")
    assert value(knobs({"go.py": alone}), "TTT_ENABLED") == ("1", "command")


@pytest.mark.parametrize(
    "log",
    [
        "Hyperparameters:\n  lr: 0.1\n  ttt_enabled: True\n",
        "world_size:8 ttt_enabled:1 grad_accum:1\n",
        "Namespace(lr=0.1, ttt_enabled=True)\n",
        '{"ttt_enabled": true, "lr": 0.1}\n',
    ],
)
def test_dumps_in_logs_are_translated_to_the_environment(log: str) -> None:
    assert value(knobs({"train.log": log}), "TTT_ENABLED") == ("1", "log")


def test_the_log_beats_the_command_that_was_written_down() -> None:
    found = knobs(
        {"train.log": "  ttt_enabled: False\n", "README.md": "```\nTTT_ENABLED=1 torchrun train_gpt.py\n```"}
    )
    assert value(found, "TTT_ENABLED") == ("0", "log")
    assert {c.value for c in found.claims["TTT_ENABLED"]} == {"0", "1"}


def test_the_program_text_that_a_log_begins_with_is_not_a_statement() -> None:
    log = "import os\nttt_enabled = True\ndef main():\n    pass\n" + "=" * 60 + "\nstep:1 loss:2\n"
    assert knobs({"train.log": log}).lookup("TTT_ENABLED") is None


def test_a_line_that_one_branch_alone_prints_shows_its_knob() -> None:
    assert value(knobs({"train.log": "step 1\nadapting with 0.0020 now\n"}), "TTT_ENABLED") == ("1", "log")
    assert value(knobs({"train.log": "start lr=0.1 using adapters rank 4\n"}), "EVAL_MODE") == ("lora", "log")
    assert knobs({"train.log": "start lr=0.1\n"}).lookup("EVAL_MODE") is None


def test_a_line_that_is_printed_elsewhere_too_shows_nothing() -> None:
    script = SCRIPT + '\nprint("adapting with ", 3)\n'
    assert knobs({"train.log": "adapting with 0.0020 now\n"}, script=script).lookup("TTT_ENABLED") is None


def test_only_logs_of_the_reported_score_count() -> None:
    extra = {
        "submission.json": '{"val_bpb": 1.12345}',
        "train_a.log": "ttt_enabled: True\nfinal val_bpb:1.123452\n",
        "train_b.log": "ttt_enabled: False\nfinal val_bpb:1.2222\n",
        "train_c.log": "ttt_enabled: False\nfinal val_bpb:1.3333\n",
    }
    found = knobs(extra).lookup("TTT_ENABLED")
    assert found is not None and (found.value, found.ambiguous) == ("1", False)


def test_contradicting_runs_make_a_knob_ambiguous() -> None:
    extra = {"train_a.log": "ttt_enabled: True\n", "train_b.log": "ttt_enabled: False\n"}
    found = knobs(extra).lookup("TTT_ENABLED")
    assert found is not None and found.ambiguous


def test_user_beats_log_and_wrapper_comes_last() -> None:
    extra = {"train.log": "ttt_enabled: True\n"}
    found = knobs(extra, env={"TTT_ENABLED": "0"}, env_defaults={"TTT_ENABLED": "0", "EVAL_MODE": "full"})
    assert value(found, "TTT_ENABLED") == ("0", "env")
    assert value(found, "EVAL_MODE") == ("full", "wrapper")


TWO_STEPS = """
```bash
ITERATIONS=500 TTT_ENABLED=0 torchrun train_gpt.py
EVAL_MODE=lora TTT_ENABLED=1 torchrun train_gpt.py
```
"""


def test_alternatives_are_the_commands_one_by_one_then_the_defaults():
    found = list(alternatives(knobs({"README.md": TWO_STEPS})))
    assert [{k: v.value for k, v in x.values.items()} for x in found] == [
        {"EVAL_MODE": "lora", "TTT_ENABLED": "1"},
        {"ITERATIONS": "500", "TTT_ENABLED": "0"},
        {},
    ]


def test_defaults_that_a_log_contradicts_are_no_alternative():
    found = list(alternatives(knobs({"README.md": TWO_STEPS, "train.log": "  ttt_enabled: True\n  lr: 0.002\n"})))
    assert all(x.values for x in found)


def test_an_override_by_the_user_stays_in_every_alternative():
    found = list(alternatives(knobs({"README.md": TWO_STEPS}, {"TTT_ENABLED": "1"})))
    assert found and all(x.values["TTT_ENABLED"].value == "1" for x in found)


def test_a_run_script_that_the_submission_puts_at_the_root_counts():
    files = {"r/train_gpt.py": SCRIPT, "run.sh": "TTT_ENABLED=1 torchrun r/train_gpt.py\n"}
    submission = SubmissionFiles(
        target="t", tree=MemoryTree(files), primary="r/train_gpt.py", paths=["r/train_gpt.py"], changed=list(files)
    )
    found = resolve(submission, {"r/train_gpt.py": SCRIPT}, {}, None, {}, {})
    assert found.lookup("TTT_ENABLED").value == "1"


def test_logs_far_from_the_stated_score_are_of_other_runs():
    said = {"README.md": "```\nTTT_ENABLED=0 torchrun train_gpt.py\n```", "submission.json": '{"val_bpb": 1.1679}'}
    other = said | {"train.log": "ttt_enabled: True\nadapting with 0.0020 now\nstep 9 val_bpb:1.1700\n" + "final val_bpb:1.0106\n" * 4}
    assert value(knobs(other), "TTT_ENABLED") == ("0", "command")
    seed = said | {"train.log": "ttt_enabled: True\nfinal val_bpb:1.1702\n"}
    assert value(knobs(seed), "TTT_ENABLED") == ("1", "log")
    # Where nobody typed anything, such a log is still the best that there is.
    assert value(knobs({k: v for k, v in other.items() if k != "README.md"}), "TTT_ENABLED") == ("1", "log")


def test_a_switch_is_as_it_was_printed_last():
    log = "=== rehearsal (TTT_ENABLED=1) ===\nlr: 0.5\nmode:full\nttt_enabled:True lr_scale:1\n" + "step:1\n" * 9
    found = knobs({"train.log": log + "backend:fast ttt_enabled:False\nlr: 0.5\nfinal val_bpb:1.1\n"})
    assert value(found, "TTT_ENABLED") == ("0", "log")


def test_options_line_by_line_are_all_declared() -> None:
    lines = [f'parser.add_argument("--{name}", type=int, default={n}, help="(n)")' for n, name in enumerate(("one", "two", "three", "four"))]
    lines.insert(2, 'parser.add_argument(\n    "--wide",\n    type=lambda x: int(x),\n    default=7,\n)')
    script = "import argparse\nparser = argparse.ArgumentParser()\n" + "\n".join(lines) + "\nargs = parser.parse_args()\n"
    found = knobs({}, script=script).declared
    assert {name: d.default for name, d in found.items()} == {"--one": "0", "--two": "1", "--wide": "7", "--three": "2", "--four": "3"}


def test_a_command_that_tries_the_script_out_says_nothing_of_the_run() -> None:
    script = "import os\nA = os.environ.get('LOCAL_SMOKE_TEST', '0')\nB = os.environ.get('VAL_BATCH', '9')\n"
    block = "```bash\nexport VAL_BATCH=1\nexport LOCAL_SMOKE_TEST={}\npython train_gpt.py\n```\n"
    assert knobs({"README.md": block.format(1)}, script=script).values == {}
    assert set(knobs({"README.md": block.format(0)}, script=script).values) == {"LOCAL_SMOKE_TEST", "VAL_BATCH"}
