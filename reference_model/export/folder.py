"""Writes the submission folder: script, README, submission.json, requirements."""

from __future__ import annotations

import json
import pprint
from pathlib import Path
from typing import Any

from audit.contracts import InputError
from reference_model.config import Recipe
from reference_model.export.bundle import Bundler

ROOT = "reference_model.export.submission"
KERNELS = frozenset({"reference_model.kernels.mlp", "reference_model.kernels.attention"})
PLACE = 'RECIPE: dict = load("default").as_dict()  # the exporter puts its recipe here'
#: Keys of [evaluate] and [quantize] that the script understands; anything else would be lost without a word.
EVALUATE = frozenset({"context", "stride", "ttt", "chunk", "lr", "momentum", "epochs", "freeze", "last", "clip",
                      "reset", "decay", "rows"})  # fmt: skip
QUANTIZE = frozenset(
    {"method", "bits", "clip", "block", "calibration", "sequences", "compressor", "target_bytes"}
)


def script(recipe: Recipe) -> str:
    """The whole program for one recipe, without any import of this project. Raises InputError."""
    values = recipe.as_dict()
    evaluate = {"context": recipe.data.context, "stride": 64, "ttt": "none"} | values["evaluate"]
    for section, known, given in (
        ("evaluate", EVALUATE, evaluate),
        ("quantize", QUANTIZE, values["quantize"]),
    ):
        unknown = sorted(set(given) - known)
        if unknown:
            raise InputError(f"{recipe.name}: [{section}] {', '.join(unknown)}: not known to the exporter")
    if evaluate["ttt"] not in ("none", "sgd", "adamw"):
        raise InputError(
            f"{recipe.name}: evaluate.ttt {evaluate['ttt']!r} cannot be exported; sgd, adamw or none"
        )
    values["evaluate"] = evaluate
    for section in ("model",):  # tuples come back from JSON as lists
        values[section] = {k: tuple(v) if isinstance(v, list) else v for k, v in values[section].items()}
    eager = recipe.run.mlp == "eager" and recipe.run.attention == "eager"
    text = Path(__file__).with_name("submission.py").read_text(encoding="utf-8")
    if text.count(PLACE) != 1:
        raise AssertionError("the script has no single place for its recipe")
    text = text.replace(PLACE, f"RECIPE = {pprint.pformat(values, width=100, sort_dicts=False)}")
    return Bundler(KERNELS if eager else frozenset(), {ROOT: text}).bundle(ROOT)


def requirements(recipe: Recipe) -> list[str]:
    found = ["torch", "numpy", "sentencepiece"]
    if recipe.run.mlp != "eager" or recipe.run.attention != "eager":
        found.append("triton")
    compressor = recipe.quantize.get("compressor", "lzma")
    return found + {"zstd": ["zstandard"], "brotli": ["brotli"]}.get(compressor, [])


def readme(recipe: Recipe) -> str:
    model, evaluate, quantize = recipe.model, recipe.evaluate, recipe.quantize
    ttt = evaluate.get("ttt", "none")
    adapted = (
        f"Score-first test-time training ({ttt}): a chunk of {evaluate.get('chunk', 32_768):,} targets is scored completely, "
        "then trained on; the last chunk is only scored."
        if ttt != "none"
        else "No test-time training."
    )
    return f"""# {recipe.name}

{recipe.source}. Exported from a recipe; no results are claimed here before somebody has run it.

- {model.layers} layers, width {model.dim}, {model.heads} query and {model.kv_heads} key/value heads, MLP {model.mlp_hidden},
  vocabulary {model.vocab}
- {recipe.data.batch_tokens:,} tokens a step in sequences of {recipe.data.context}, {recipe.schedule.seconds:.0f} seconds of training
- artifact: {quantize.get("method", "rtn")}, {quantize.get("bits", 6)} bits, {quantize.get("compressor", "lzma")}; calibration on validation data: none
- evaluation: sliding window, context {evaluate.get("context", recipe.data.context)}, stride {evaluate.get("stride", 64)}. {adapted}

```bash
pip install -r requirements.txt
SEED=1337 DATA_PATH=./data/datasets/fineweb10B_sp1024 TOKENIZER_PATH=./data/tokenizers/fineweb_1024_bpe.model \\
torchrun --standalone --nproc_per_node=8 train_gpt.py
```

The script is one file and imports nothing but published packages. It writes `final_model.ptz`, reads it back, and
scores the whole validation stream once with the model that it read.
"""


def write(recipe: Recipe, out: Path) -> list[Path]:
    """The folder's files, written. Raises InputError when the folder holds something else already."""
    foreign = out.is_dir() and any(out.iterdir()) and not (out / "train_gpt.py").is_file()
    if foreign or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: exists and is no submission folder; name a new one")
    out.mkdir(parents=True, exist_ok=True)
    claims: dict[str, Any] = {"name": recipe.name, "author": "", "github_id": "", "date": "", "blurb": recipe.source, "val_bpb": None,
              "bytes_total": None, "seeds": [], "recipe_sha256": recipe.digest()}  # fmt: skip
    contents = {
        "train_gpt.py": script(recipe),
        "README.md": readme(recipe),
        "submission.json": json.dumps(claims, indent=2) + "\n",
        "requirements.txt": "\n".join(requirements(recipe)) + "\n",
    }
    for name, text in contents.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in contents]
