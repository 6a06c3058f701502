"""A small data folder: real format, a tokenizer trained on the spot, a language simple enough to learn."""

from __future__ import annotations

import random

import numpy as np
import pytest

from harness.tokens.shards import write_shard
from harness.tokens.tokenizer import train_tokenizer

NOUNS = ["window", "target", "stride", "chunk", "score", "token", "shard", "model", "weight", "batch"]
VERBS = ["reads", "follows", "scores", "updates", "packs", "trains"]


def text(seed: int, sentences: int) -> str:
    source = random.Random(seed)
    return " ".join(
        f"The {source.choice(NOUNS)} {source.choice(VERBS)} the {source.choice(NOUNS)}."
        for _ in range(sentences)
    )


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    documents = [text(i, 40) for i in range(90)]
    tokenizer = train_tokenizer(documents, 300, folder / "tokenizer.model")
    rows = tokenizer.encode_documents(documents)
    write_shard(folder / "fineweb_val_000000.bin", np.concatenate(rows[:10]))
    write_shard(folder / "fineweb_train_000000.bin", np.concatenate(rows[10:60]))
    write_shard(folder / "fineweb_train_000001.bin", np.concatenate(rows[60:]))
    return folder
