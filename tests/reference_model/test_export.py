"""Exported submissions: they stand alone, run to the end, count bytes right, and the auditor clears them."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.tokens.bytes import ByteTable
from harness.tokens.tokenizer import load_tokenizer
from reference_model import config
from reference_model.export.bundle import Bundler
from reference_model.export.folder import script

ALL = config.names()


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The functions of an exported script, as the script defines them."""
    path = tmp_path_factory.mktemp("export") / "train_gpt.py"
    path.write_text(script(config.load("demo")))
    spec = importlib.util.spec_from_file_location("exported_script", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["exported_script"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return vars(module)


@pytest.mark.parametrize("name", ALL)
def test_the_script_imports_nothing_of_this_project_and_defines_what_it_uses(name):
    text = script(config.load(name))
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in ("reference_model", "harness", "audit")
        if isinstance(node, ast.Import):
            assert not {a.name.split(".")[0] for a in node.names} & {"reference_model", "harness", "audit"}
    ruff = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F811,E9", "-q", "-"],
        input=text, capture_output=True, text=True,
    )  # fmt: skip
    if "No module named ruff" not in ruff.stderr:
        assert ruff.returncode == 0, ruff.stdout
    assert ("triton" in text) == (config.load(name).run.mlp != "eager")


@pytest.mark.parametrize("name", ALL)
def test_the_auditor_calls_the_folder_clean(name, tmp_path, capsys):
    assert main(["export", name, "--out", str(tmp_path / name)]) == 0
    capsys.readouterr()
    code = main(["audit", str(tmp_path / name), "--format", "json"])
    found = json.loads(capsys.readouterr().out)["submissions"][0]
    assert (code, found["verdict"]) == (0, "clean"), found["reason"]
    wanted = config.load(name).evaluate.get("ttt", "none")
    assert found["ttt"] == (
        {"kind": "score-first-chunk", "active": "yes"}
        if wanted != "none"
        else {"kind": "none", "active": "no"}
    )


def test_the_auditor_objects_once_the_order_is_turned_round(tmp_path, capsys):
    """The same script with the scoring of a chunk moved behind its training is no longer clean."""
    main(["export", "pr726", "--out", str(tmp_path / "a")])
    path = tmp_path / "a" / "train_gpt.py"
    text = path.read_text()
    scoring = re.search(
        r"        # Score this chunk with.*?            dist\.barrier\(\)\n", text, re.S
    ).group(0)
    training_end = (
        "                    optimizer.step()\n    if world_size > 1:\n        dist.all_reduce(loss_sum)"
    )
    assert text.count(training_end) == 1
    windows = re.search(r"        windows = chunk_windows\(total, chunk_start.*?\n", text).group(0)
    moved = text.replace(scoring, windows).replace(
        training_end, training_end.replace("    if world_size", scoring + "    if world_size", 1)
    )
    path.write_text(moved)
    capsys.readouterr()
    assert main(["audit", str(tmp_path / "a")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pr1171", "pr827-stack"])
def test_an_exported_folder_runs_to_the_end_on_its_own(name, data_folder, tmp_path):
    """SGD and AdamW adaptation; rounding, GPTQ on random and on self-written text; lzma, zstd, brotli."""
    folder = tmp_path / "submission"
    change = ["--set", "repeat_start=3", "--set", "compress.qat_below=0.6"]
    assert main(["export", name, "--shrink", "--out", str(folder), *change]) == 0
    run = subprocess.run(
        [sys.executable, "-I", "train_gpt.py"], cwd=folder, capture_output=True, text=True, timeout=280,
        env={"PATH": os.environ["PATH"], "DATA_PATH": str(data_folder), "ITERATIONS": "8", "MAX_WALLCLOCK_SECONDS": "0",
             "TOKENIZER_PATH": str(data_folder / "tokenizer.model"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    said = run.stdout
    artifact = (folder / "final_model.ptz").stat().st_size
    code = (folder / "train_gpt.py").stat().st_size
    recipe = config.shrink(config.load(name))
    compressor, bits = recipe.quantize["compressor"], recipe.quantize["bits"]
    assert f"Total submission size int{bits}+{compressor}: {artifact + code} bytes" in said
    loss, bpb = map(float, re.search(r"final_exact val_loss:([\d.]+) val_bpb:([\d.]+)", said).groups())
    assert 3.0 < loss < 8.0 and 0.5 < bpb < 6.0
    assert f"model_params:{sum(p.numel() for p in model_of(recipe).parameters())}" in said


def model_of(recipe):
    from reference_model.model import Golf

    return Golf(recipe.model)


def test_the_scripts_byte_count_is_the_official_one(parts, data_folder):
    path = data_folder / "tokenizer.model"
    table = ByteTable.from_tokenizer(load_tokenizer(path), 300)
    base, spaced, boundary = parts["build_byte_tables"](str(path), 300, torch.device("cpu"))
    previous, target = np.meshgrid(np.arange(300), np.arange(300))
    want = table.target_bytes(previous.ravel(), target.ravel())
    p, t = torch.from_numpy(previous.ravel()), torch.from_numpy(target.ravel())
    assert (base[t] + (spaced[t] & ~boundary[p]).long()).tolist() == want.tolist()


@settings(max_examples=80, deadline=None)
@given(
    total=st.integers(1, 300), seq=st.integers(1, 40), stride=st.integers(1, 50), chunk=st.integers(1, 120)
)
def test_windows_of_all_chunks_score_every_target_once_in_order(parts, total, seq, stride, chunk):
    scored = []
    for first in range(0, total, chunk):
        last = min(first + chunk, total)
        for start, begin, end in parts["chunk_windows"](total, first, last, seq, stride):
            assert 0 <= start <= begin < end <= last and end - start <= seq
            assert end - start == min(seq, end) or start == 0
            scored += range(begin, end)
    assert scored == list(range(total))


@pytest.mark.parametrize("compressor", ["lzma", "zlib", "zstd", "brotli"])
def test_what_is_packed_is_what_is_read(parts, compressor):
    torch.manual_seed(0)
    model = model_of(config.load("demo", ["layers=2", "dim=64", "heads=2", "kv_heads=1", "mlp_hidden=96"]))
    packed = parts["quantize_state"](model, None)
    state = parts["unpack"](parts["pack"](packed, compressor), compressor)
    top = 2 ** (parts["Hyperparameters"].quant_bits - 1) - 1
    for name, tensor in model.state_dict().items():
        assert state[name].shape == tensor.shape
        limit = tensor.abs().amax(-1, keepdim=True) / top * 0.51 if tensor.dim() == 2 else tensor.abs() * 1e-3
        assert ((state[name] - tensor).abs() <= limit.clamp_min(1e-4) * 1.5).float().mean() > 0.98, name


def test_pruning_to_size_lands_under_the_limit_and_takes_the_cheapest_ones_first(parts):
    torch.manual_seed(0)
    model = model_of(config.load("demo", ["layers=2", "dim=64", "heads=2", "kv_heads=1", "mlp_hidden=96"]))
    packed = parts["quantize_state"](model, None)
    whole = len(parts["pack"](packed, "zlib"))
    assert parts["pack_to_size"](packed, "zlib", whole) == (parts["pack"](packed, "zlib"), 0.0)
    blob, share = parts["pack_to_size"](packed, "zlib", int(whole * 0.996))
    assert len(blob) <= int(whole * 0.996) and 0 < share < 1
    half = parts["prune_codes"](packed, 0.5)
    kept, gone = [], []
    for name, entry in packed.items():
        if entry["kind"] == "codes":
            ones = np.abs(entry["codes"]) == 1
            cost = np.broadcast_to(entry["scale"].astype(np.float32) ** 2, ones.shape)
            zeroed = ones & (half[name]["codes"] == 0)
            assert np.array_equal(half[name]["codes"][~zeroed], entry["codes"][~zeroed])
            gone += cost[zeroed].tolist()
            kept += cost[ones & ~zeroed].tolist()
    assert max(gone) <= min(kept)


def test_bundling_tells_equal_names_apart():
    """Both kernel modules define a ``_backward`` of their own."""
    text = Bundler().bundle("reference_model.export.submission")
    assert len(re.findall(r"^def _backward\(", text, re.M)) == 1
    assert "_prepare_op.register_autograd(_backward" in text or "_backward_attention" in text
    for anchor in ("_prepare_op", "_linear_leaky_square", "_mlp_residual"):
        assert text.count(f"{anchor}.register_autograd(") == 1
    defined = re.findall(r"^(?:def|class) (\w+)", text, re.M)
    assert len([n for n in defined if n != "_"]) == len({n for n in defined if n != "_"})


def test_settings_that_the_script_does_not_know_are_refused(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text("[evaluate]\nttt = 'lora'\n")
    assert main(["export", str(path), "--out", str(tmp_path / "out")]) == 2
    path.write_text("[evaluate]\nphases = 3\n")
    assert main(["export", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "phases" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    assert main(["export", "demo", "--out", str(tmp_path / "full")]) == 2
