"""A laboratory (artifact, tokenizer, shards, millisecond model) shared by the tests of the evaluator."""

import os

import pytest
import torch

from harness.mutants.lab import make_lab


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(kept)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory.mktemp("lab"))
