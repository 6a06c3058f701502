"""The benchmarks keep what they have measured, whatever happens next, and their figures are what they say."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


recipes = load("recipes")


def rows(*pairs):
    return [{"step": step, "elapsed_s": elapsed} for step, elapsed in pairs]


@pytest.mark.parametrize(
    ("reports", "whole", "steps", "expected"),
    [
        # Steady state: the first slow steps do not count.
        (rows((1, 9.0), (2, 9.5), (5, 11.0), (10, 13.5), (15, 16.0), (20, 18.5)), 18.5, 20, 0.5),
        # One report after step 5 says nothing by itself.
        (rows((1, 9.0), (2, 9.5), (3, 10.0), (5, 11.0), (10, 13.5)), 13.5, 10, 0.5),
        (rows((1, 2.0), (2, 2.5), (3, 3.0)), 3.0, 3, 0.5),
        (rows((1, 2.0)), 2.0, 1, 2.0),
    ],
)
def test_milliseconds_per_step_of_short_runs(reports, whole, steps, expected):
    assert recipes.seconds_per_step(reports, whole, steps) == pytest.approx(expected)


def result(job):
    return {
        "recipe": job, "parameters": 1234, "steps": 10, "ms_per_step": 50.0, "tokens_per_s": 1e6, "mfu": None,
        "memory_mib": None, "first_loss": 6.9, "last_loss": 5.5, "loss_at_200": None,
        "raw_bpb": {"held": 2.0}, "bpb": {"held": 1.9},
    }  # fmt: skip


def test_recipes_that_never_ran_are_reported(tmp_path, monkeypatch):
    """Files are complete after each recipe: what ran, what failed, what was not started."""
    clock = [0.0]
    seen = []

    def launch(job, device, folder, arguments):
        seen.append(json.loads((tmp_path / "results.json").read_text()))
        clock[0] += 40.0
        return result(job) if job != "bad" else {"recipe": job, "error": "loss is not a number"}

    monkeypatch.setattr(recipes, "launch", launch)
    monkeypatch.setattr(recipes, "devices", lambda: [""])
    monkeypatch.setattr(recipes.time, "perf_counter", lambda: clock[0])
    arguments = argparse.Namespace(
        data=tmp_path,
        out=tmp_path,
        text=[],
        budget=100.0,
        jobs=["one", "bad", "three", "four"],
        seconds=1.0,
        steps=0,
    )
    results = recipes.run_all(arguments)
    assert [r["recipe"] for r in results] == ["one", "bad", "three", "four"]
    final = recipes.report(arguments, results)
    assert final == json.loads((tmp_path / "results.json").read_text())
    assert final["not_started"] == ["four"] and final["failed"] == ["bad"]
    # Before the third recipe both earlier ones were on disk already.
    assert "parameters" in seen[2]["results"][0] and seen[2]["failed"] == ["bad", "three"]
    assert seen[2]["results"][2]["error"] == "started, not finished" and seen[2]["not_started"] == ["four"]
    table = (tmp_path / "table.md").read_text()
    assert "| `one` | 1,234 | 10 | 50.0 |" in table and "2.0000 / 1.9000" in table
    assert "not started: out of time" in table and "loss is not a number" in table
    assert len({line.count("|") for line in table.splitlines()}) == 1
