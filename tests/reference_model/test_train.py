"""``referee train`` from end to end: learning, logs, interruption, resumption, errors in one line."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from audit.contracts import InputError
from audit.evidence.logs import read_log
from harness.cli import main
from harness.tokens.shards import write_shard
from reference_model import config
from reference_model.model import Golf
from reference_model.train import checkpoint
from reference_model.train.logs import Logs
from reference_model.train.loop import Trainer
from reference_model.train.ranks import Ranks

ROOT = Path(__file__).parents[2]
#: Small enough for a step of some ten milliseconds.
TINY = ["layers=2", "dim=32", "heads=2", "kv_heads=1", "mlp_hidden=48", "bigram_size=65", "bigram_dim=8", "xsa_layers=1",
        "data.context=32", "batch_tokens=256", "log_every=1", "validate_tokens=512"]  # fmt: skip


def flags(*settings):
    return [part for s in (*TINY, *settings) for part in ("--set", s)]


def run(folder, out, *arguments, settings=()):
    torch.set_num_threads(1)
    command = [
        "train",
        "demo",
        "--data",
        str(folder),
        "--out",
        str(out),
        "--device",
        "cpu",
        *flags(*settings),
    ]
    return main([*command, *arguments])


def records(out):
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


def saved(out):
    """The checkpoint's content digest, which the file claims and this recomputes."""
    return checkpoint.content_digest(checkpoint.load(out / "checkpoint.pt"))


def test_the_last_step_is_reported_whatever_the_interval(data_folder, tmp_path):
    assert run(data_folder, tmp_path, "--steps", "6", settings=["log_every=4"]) == 0
    lines = [line for line in records(tmp_path) if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 6]
    assert all(b["elapsed_s"] > a["elapsed_s"] for a, b in itertools.pairwise(lines))


def test_a_run_learns_and_says_so(data_folder, tmp_path, capsys):
    assert run(data_folder, tmp_path, "--steps", "60", settings=["warmdown=20"]) == 0
    said = capsys.readouterr().out
    before, after = map(float, re.search(r"([\d.]+) -> ([\d.]+) bits per byte, 60 steps", said).groups())
    assert after < 0.7 * before
    lines = records(tmp_path)
    assert lines[0]["event"] == "start" and lines[-1]["event"] == "end"
    recipe = config.from_dict(lines[0]["recipe"])
    assert recipe.digest() == lines[0]["recipe_digest"] and recipe.model.dim == 32
    assert len(lines[0]["source_digest"]) == 64
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 61))
    assert steps[9]["tokens"] == 10 * 256
    first = next(line for line in lines if line.get("event") == "validation")
    assert steps[0]["bpb_estimate"] / steps[0]["loss"] == pytest.approx(first["bpb"] / first["val_loss"])
    for key in ("tokens_per_s", "elapsed_s", "scale", "mfu", "memory_mib"):
        assert key in steps[0]
    final = [line for line in lines if line.get("event") == "validation"][-1]
    assert final["final"] and final["bpb"] == pytest.approx(lines[-1]["last_bpb"])


def test_the_text_log_is_in_the_contests_dialect(data_folder, tmp_path):
    run(data_folder, tmp_path, "--steps", "4", "--quiet")
    text = (tmp_path / "train.log").read_text()
    count = sum(p.numel() for p in Golf(config.load("demo", TINY).model).parameters())
    for pattern in (
        rf"^model_params:{count}$",
        r"^world_size:1 grad_accum_steps:1$",
        r"^train_batch_tokens:256 train_seq_len:32 iterations:4 ",
        r"^seed:1337$",
        r"^step:4/4 train_loss:\d\.\d{4} train_time:\d+ms step_avg:[\d.]+ms$",
        r"^step:4/4 val_loss:\d\.\d{4} val_bpb:\d\.\d{4} train_time:\d+ms step_avg:[\d.]+ms$",
        r"^recipe:demo recipe_sha256:[0-9a-f]{64} source_sha256:[0-9a-f]{64}$",
    ):
        assert re.search(pattern, text, re.M), pattern


def test_the_evidence_audit_reads_our_log_like_anybody_elses(data_folder, tmp_path):
    run(data_folder, tmp_path, "--steps", "4", "--quiet")
    facts = {fact.name: fact.value for fact in read_log("train.log", (tmp_path / "train.log").read_bytes())}
    final = [r for r in records(tmp_path) if r.get("event") == "validation"][-1]
    assert facts["seed"] == 1337 and facts["world_size"] == 1
    assert facts["model_params"] == records(tmp_path)[0]["parameters"]
    assert facts["step_val_bpb"] == pytest.approx(final["bpb"], abs=1e-4)


def test_the_checkpoint_is_data_only_and_builds_the_same_model(data_folder, tmp_path):
    run(data_folder, tmp_path, "--steps", "3", "--quiet")
    content = checkpoint.load(tmp_path / "checkpoint.pt")
    assert set(content) == {"family", "config", "state", "step", "recipe"} and content["step"] == 3
    model = Golf(config.model_config(content["config"]))
    model.load_state_dict(content["state"])
    assert model.forward_logits(torch.tensor([[1, 2, 3]])).isfinite().all()


def test_an_altered_checkpoint_is_refused(data_folder, tmp_path):
    run(data_folder, tmp_path, "--steps", "2", "--quiet")
    path = tmp_path / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    content["state"]["embed.weight"][0, 0] += 1e-3
    torch.save(content, path)
    with pytest.raises(InputError, match="does not match its digest"):
        checkpoint.load(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable checkpoint"):
        checkpoint.load(path)


def test_the_same_seed_trains_the_same_weights_and_another_seed_others(data_folder, tmp_path):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        run(data_folder, tmp_path / name, "--steps", "5", "--seed", seed, "--quiet", "--deterministic")
    states = {n: checkpoint.load(tmp_path / n / "checkpoint.pt")["state"] for n in "abc"}
    assert checkpoint.content_digest(states["a"]) == checkpoint.content_digest(states["b"])
    assert checkpoint.content_digest(states["a"]) != checkpoint.content_digest(states["c"])


def test_gradient_accumulation_keeps_the_global_batch(data_folder, tmp_path):
    run(data_folder, tmp_path / "whole", "--steps", "4", "--quiet")
    run(data_folder, tmp_path / "parts", "--steps", "4", "--quiet", settings=["micro_tokens=64"])
    whole, parts = (checkpoint.load(tmp_path / n / "checkpoint.pt")["state"] for n in ("whole", "parts"))
    assert "grad_accum_steps:4" in (tmp_path / "parts" / "train.log").read_text()
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-3, atol=2e-5)


def interrupted_at(monkeypatch, step):
    """Sends the process a real SIGTERM while the given step computes."""
    original = Trainer._one_step

    def one_step(self, tokens, scale):
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, tokens, scale)

    monkeypatch.setattr(Trainer, "_one_step", one_step)


@pytest.mark.parametrize("name", ["demo", "pr827-stack", "pr1072"])
def test_a_run_cut_by_sigterm_and_resumed_is_bit_identical(name, data_folder, tmp_path, monkeypatch):
    """Averages, quantization-aware training, repeated layers, online Hessians: all cross the cut."""
    torch.set_num_threads(1)
    steps = 12
    recipe = config.shrink(config.load(name))
    recipe = config.from_dict(
        recipe.as_dict()
        | {
            "schedule": recipe.as_dict()["schedule"]
            | {"seconds": 0, "steps": steps, "warmdown": 8, "repeat_start": 3},
            "average": recipe.as_dict()["average"] | {"ema": 0.7, "swa_every": 1, "use": "blend"},
            "compress": recipe.as_dict()["compress"] | {"hessian_every": 2, "qat_bits": 6, "qat_below": 0.6},
            "run": recipe.as_dict()["run"] | {"validate_tokens": 0},
        }
    )

    def train(out):
        out.mkdir(exist_ok=True)
        with Logs(out, resume=True, quiet=True) as logs:
            alone = Ranks(rank=0, world=1, device=torch.device("cpu"))
            return Trainer(recipe, data_folder, out, alone, logs, deterministic=True).run()

    assert train(tmp_path / "whole").interrupted is None
    cut = random.randrange(1, steps - 1)
    with monkeypatch.context() as patch:
        interrupted_at(patch, cut)
        outcome = train(tmp_path / "cut")
    assert outcome.interrupted == signal.SIGTERM and outcome.steps == cut + 1 and outcome.checkpoint is None
    assert (tmp_path / "cut" / "resume.pt").is_file() and not (tmp_path / "cut" / "checkpoint.pt").exists()
    assert train(tmp_path / "cut").interrupted is None
    assert not (tmp_path / "cut" / "resume.pt").exists()
    whole, again = (checkpoint.load(tmp_path / n / "checkpoint.pt") for n in ("whole", "cut"))
    assert "hessians" in whole
    for part in whole:
        assert checkpoint.content_digest(whole[part]) == checkpoint.content_digest(again[part]), (part, cut)
    losses = [[r["loss"] for r in records(tmp_path / n) if "loss" in r] for n in ("whole", "cut")]
    assert losses[0] == losses[1] and len(losses[0]) == steps


def test_a_crash_loses_no_more_than_a_checkpoints_interval(data_folder, tmp_path, monkeypatch):
    """Nothing is saved on the way out, as after a power cut; the run goes on from the last checkpoint."""
    arguments = ("--steps", "10", "--quiet", "--deterministic")
    settings = ["checkpoint_every=3"]
    run(data_folder, tmp_path / "whole", *arguments, settings=settings)
    original = Trainer._one_step

    def crash(self, tokens, scale):
        if self.step == 7:
            raise ZeroDivisionError("power cut")
        return original(self, tokens, scale)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", crash)
        assert run(data_folder, tmp_path / "cut", *arguments, settings=settings) == 70
    assert checkpoint.load(tmp_path / "cut" / "resume.pt")["step"] == 6
    run(data_folder, tmp_path / "cut", *arguments, settings=settings)
    assert saved(tmp_path / "whole") == saved(tmp_path / "cut")


@pytest.mark.slow
def test_killing_the_real_process_at_a_random_moment_and_running_it_again(data_folder, tmp_path):
    def start(out):
        command = [sys.executable, "-m", "reference_model", "train", "demo", "--data", str(data_folder), "--out",
                   str(out), "--steps", "40", "--threads", "1", "--deterministic", "--quiet", *flags()]  # fmt: skip
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    cut = start(tmp_path / "cut")
    log = tmp_path / "cut" / "train.jsonl"
    wanted = random.randrange(1, 25)
    while cut.poll() is None and not (log.exists() and log.read_text().count('"loss"') >= wanted):
        time.sleep(0.005)
    cut.send_signal(signal.SIGTERM)
    assert cut.wait(120) == 128 + signal.SIGTERM
    assert start(tmp_path / "cut").wait(200) == 0
    assert run(data_folder, tmp_path / "whole", "--steps", "40", "--deterministic", "--quiet") == 0
    assert saved(tmp_path / "whole") == saved(tmp_path / "cut")


def test_resuming_with_another_recipe_is_refused(data_folder, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupted_at(patch, 2)
        assert run(data_folder, tmp_path, "--steps", "6", "--quiet") == 143
    assert run(data_folder, tmp_path, "--steps", "6", "--quiet", settings=["matrix_lr=0.5"]) == 2
    assert "another recipe" in capsys.readouterr().err
    assert run(data_folder, tmp_path, "--steps", "6", "--quiet", "--fresh", settings=["matrix_lr=0.5"]) == 0


def test_stop_after_leaves_the_schedule_alone(data_folder, tmp_path):
    run(
        data_folder,
        tmp_path,
        "--steps",
        "1000",
        "--quiet",
        settings=["stop_after=3", "warmdown=100", "warmup=0"],
    )
    steps = [r for r in records(tmp_path) if "loss" in r]
    assert [s["scale"] for s in steps] == [1.0] * 3


def one_line(capsys):
    error = capsys.readouterr().err.strip()
    assert error and "\n" not in error and "Traceback" not in error
    return error


def test_missing_data_is_one_line(tmp_path, capsys):
    assert run(tmp_path / "nowhere", tmp_path / "out") == 2
    assert "nowhere" in one_line(capsys)


def test_a_damaged_shard_is_one_line_that_names_it(data_folder, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for path in data_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    broken = folder / "fineweb_train_000001.bin"
    broken.write_bytes(broken.read_bytes()[:-7])
    assert run(folder, tmp_path / "out") == 2
    assert broken.name in one_line(capsys)


def test_tokens_beyond_the_vocabulary_are_one_line(data_folder, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    write_shard(folder / "fineweb_train_000000.bin", np.array([1, 5000] * 200))
    assert run(folder, tmp_path / "out", settings=["validate_tokens=0"]) == 2
    assert "fineweb_train_000000.bin" in one_line(capsys)


def test_no_tokenizer_says_how_to_go_on(data_folder, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for path in data_folder.glob("*.bin"):
        (folder / path.name).write_bytes(path.read_bytes())
    assert run(folder, tmp_path / "out") == 2
    assert "validate_tokens=0" in one_line(capsys)
    assert run(folder, tmp_path / "out", "--steps", "2", "--quiet", settings=["validate_tokens=0"]) == 0


def test_out_of_memory_is_one_line_with_the_remedy(data_folder, tmp_path, capsys, monkeypatch):
    def explode(self, tokens, scale):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore text")

    monkeypatch.setattr(Trainer, "_one_step", explode)
    assert run(data_folder, tmp_path, "--steps", "2", "--quiet") == 2
    assert "--set micro_tokens=" in one_line(capsys)


def test_a_diverging_loss_is_one_line(data_folder, tmp_path, capsys):
    assert (
        run(data_folder, tmp_path, "--steps", "30", "--quiet", settings=["embed_lr=1e30", "optim.clip=0"])
        == 2
    )
    assert "not a number" in one_line(capsys)


def test_tensorboard_is_an_option(data_folder, tmp_path, capsys, monkeypatch):
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        assert run(data_folder, tmp_path, "--steps", "2", "--tensorboard") == 2
        assert "pip install tensorboard" in one_line(capsys)
    else:
        assert run(data_folder, tmp_path, "--steps", "2", "--tensorboard", "--quiet") == 0
        assert list((tmp_path / "tensorboard").glob("events.*"))
