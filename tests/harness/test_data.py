"""Building, inspecting and fetching data folders: splits, manifest, damaged inputs, an interrupted transfer."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import zstandard

from audit.contracts import InputError
from harness.cli import main
from harness.tokens.build import build
from harness.tokens.bytes import ByteTable
from harness.tokens.corpus import harvest
from harness.tokens.documents import FileSource
from harness.tokens.fetch import Remote, fetch, plan_fetch
from harness.tokens.folder import describe, find_tokenizer, read_manifest
from harness.tokens.shards import ShardSet, iter_documents, write_shard
from harness.tokens.tokenizer import load_tokenizer


def documents(count=60):
    subjects = ("referee", "auditor", "model", "tokenizer", "gradient", "evaluator", "window", "artifact")
    return [
        f"Document {i}: the {subjects[i % 8]} of row {i * 7919 % 1000} reads {i * i} tokens and writes {subjects[(i * 3) % 8]}s. "
        * (1 + i % 3)
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    texts = [*documents(), documents()[2], "  " + documents()[0].replace(" ", "  ")]
    manifest = build(texts, folder, val_documents=5, vocab_size=300, shard_tokens=2000)
    return folder, manifest, texts


def test_splits_are_disjoint_and_in_order(built):
    folder, manifest, texts = built
    model = load_tokenizer(find_tokenizer(folder))
    val = [model.decode(d) for d in iter_documents(ShardSet.open(folder, "val").tokens(), model.bos_id)]
    train = [model.decode(d) for d in iter_documents(ShardSet.open(folder, "train").tokens(), model.bos_id)]
    assert [v.strip() for v in val] == [t.strip() for t in texts[:5]]
    assert not set(v.strip() for v in val) & set(t.strip() for t in train)
    # both copies of validation text, one of them differing in spaces only, were left out of training
    assert manifest["splits"]["train"]["dropped_as_validation"] == 2
    assert len(train) == manifest["splits"]["train"]["documents"] == 55


def test_shards_are_cut_at_the_asked_size_and_counted(built):
    folder, manifest, _ = built
    files = manifest["splits"]["train"]["files"]
    assert len(files) > 1 and all(f["tokens"] == 2000 for f in files[:-1])
    for f in files:
        raw = (folder / f["file"]).read_bytes()
        assert np.frombuffer(raw, "<i4", 3).tolist() == [20240520, 1, f["tokens"]]
        assert len(raw) == 1024 + 2 * f["tokens"]
        assert hashlib.sha256(raw).hexdigest() == f["sha256"]


def test_manifest_bytes_are_those_of_the_text(built):
    folder, manifest, texts = built
    expected = sum(len(" ".join(t.split()).encode()) for t in texts[:5])
    assert manifest["splits"]["val"]["bytes"] == expected
    model = load_tokenizer(find_tokenizer(folder))
    table = ByteTable.from_tokenizer(model)
    assert table.stream_bytes(np.asarray(ShardSet.open(folder, "val").tokens())) == expected


def test_building_twice_gives_the_same_files(built, tmp_path):
    _folder, manifest, texts = built
    again = build(texts, tmp_path / "again", val_documents=5, vocab_size=300, shard_tokens=2000)
    assert again == manifest


def test_inspect_counts_and_notices_a_changed_shard(built, tmp_path, capsys):
    folder, manifest, _ = built
    found = describe(folder)
    assert found["manifest"] == {"agrees": True, "differences": []}
    assert found["splits"]["val"]["bytes"] == manifest["splits"]["val"]["bytes"]
    assert found["splits"]["val"]["documents"] == 5
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    victim = copy / manifest["splits"]["val"]["files"][0]["file"]
    raw = bytearray(victim.read_bytes())
    raw[1024 + 40] ^= 1
    victim.write_bytes(bytes(raw))
    assert main(["data", "inspect", str(copy)]) == 2
    out = capsys.readouterr()
    assert "val: the shards are not the manifest's" in out.err and len(out.err.splitlines()) == 1


def test_an_interrupted_build_leaves_no_manifest(tmp_path):
    def broken(stage, done):
        if stage == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(documents(), tmp_path, val_documents=5, vocab_size=300, progress=broken)
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    ("count", "val", "message"),
    [(5, 5, "no training documents"), (60, 0, "at least one document")],
)
def test_splits_that_would_be_empty_are_refused(tmp_path, count, val, message):
    with pytest.raises(InputError, match=message):
        build(documents(count), tmp_path, val_documents=val, vocab_size=300)


def test_sources_read_json_lines_text_and_zstd(tmp_path):
    lines = [{"text": "first", "other": 1}, {"text": "second"}]
    plain = tmp_path / "a.jsonl"
    plain.write_text("\n".join(json.dumps(x) for x in lines) + "\n\n")
    packed = tmp_path / "b.jsonl.zst"
    packed.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
    prose = tmp_path / "c.txt"
    prose.write_text("one\nstill one\n\n\ntwo\n")
    assert list(FileSource.open([plain, packed])) == ["first", "second"] * 2
    assert list(FileSource.open([prose])) == ["one\nstill one\n", "two\n"]
    assert list(FileSource.open([prose], whole_files=True)) == ["one\nstill one\n\n\ntwo\n"]
    source = FileSource.open([tmp_path])
    assert [p.name for p in source.paths] == ["a.jsonl", "b.jsonl.zst", "c.txt"]
    assert len(list(source)) == len(list(source)) == 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b'{"text": "x"}\n{"text"', "bad.jsonl, line 2: not JSON"),
        ("other.jsonl", b'{"body": "x"}\n', "other.jsonl, line 1: no text under 'text'"),
        ("latin.txt", b"caf\xe9\n", "latin.txt: not UTF-8 text"),
        ("cut.jsonl.zst", zstandard.ZstdCompressor().compress(b'{"text": "abc"}\n' * 50)[:-6], "truncated zstd"),
        ("junk.txt.zst", b"not zstd at all", "damaged zstd file"),
    ],
)
def test_damaged_sources_are_one_clear_line(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    code = main(["data", "build", str(tmp_path / name), "--out", str(tmp_path / "out"), "--val-documents", "1"])
    err = capsys.readouterr().err.splitlines()
    assert code == 2
    assert message in err[-1]
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_missing_inputs_are_named(tmp_path, capsys):
    assert main(["data", "build", str(tmp_path / "nowhere"), "--out", str(tmp_path / "o")]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    assert main(["data", "inspect", str(tmp_path)]) == 2
    assert "no val and no train shards" in capsys.readouterr().err


def test_the_tokenizer_is_found_in_the_official_layout(built, tmp_path):
    folder, _, _ = built
    data = tmp_path / "datasets" / "fineweb10B_sp300"
    data.mkdir(parents=True)
    (tmp_path / "tokenizers").mkdir()
    official = tmp_path / "tokenizers" / "fineweb_300_bpe.model"
    official.write_bytes((folder / "tokenizer.model").read_bytes())
    write_shard(data / "fineweb_val_000000.bin", np.array([1, 5, 6], dtype=np.uint16))
    assert find_tokenizer(data) == official
    (data / "a.model").write_bytes(b"x")
    official.unlink()
    (data / "b.model").write_bytes(b"x")
    with pytest.raises(InputError, match="several tokenizers"):
        find_tokenizer(data)


def test_the_harvest_is_english_and_repeats_itself_exactly():
    one, two = harvest(300_000), harvest(300_000)
    assert one == two
    text = "".join(one)
    assert 200_000 < len(text.encode()) <= 300_000
    letters = sum(c.isalpha() or c == " " for c in text)
    assert letters / len(text) > 0.7
    paragraphs = [p for d in one for p in d.split("\n\n") if len(p) >= 60]
    assert len(paragraphs) == len(set(paragraphs))


class FolderHub:
    """A hub whose files lie in a dict; can break off, or lie about a digest."""

    def __init__(self, files):
        self.files = files
        self.asked = []
        self.break_at = None
        self.lie = set()

    def describe(self, path):
        digest = hashlib.sha256(self.files[path]).hexdigest()
        return Remote(size=len(self.files[path]), sha256="0" * 64 if path in self.lie else digest)

    def download(self, path, folder):
        if path == self.break_at:
            raise InputError("cannot reach the hub")
        self.asked.append(path)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.files[path])
        return target


@pytest.fixture
def hub(tmp_path):
    shard = tmp_path / "s.bin"
    write_shard(shard, np.arange(1, 50, dtype=np.uint16))
    manifest = {
        "datasets": [
            {"name": "fineweb10B_sp1024", "tokenizer_name": "t", "stats": {"files_val": 1, "files_train": 3}}
        ],
        "tokenizers": [{"name": "t", "model_path": "tokenizers/t.model"}],
    }
    files = {
        "datasets/manifest.json": json.dumps(manifest).encode(),
        "datasets/tokenizers/t.model": b"model",
        **{
            f"datasets/datasets/fineweb10B_sp1024/fineweb_{s}_{i:06d}.bin": shard.read_bytes()
            for s, n in (("val", 1), ("train", 3))
            for i in range(n)
        },
    }
    return FolderHub(files)


def test_fetch_continues_where_it_stopped(hub, tmp_path):
    out = tmp_path / "out"
    hub.break_at = "datasets/datasets/fineweb10B_sp1024/fineweb_train_000001.bin"
    with pytest.raises(InputError, match="cannot reach"):
        list(fetch(out, hub=hub, train_shards=2))
    first = list(hub.asked)
    assert not (out / "datasets/fineweb10B_sp1024/fineweb_train_000001.bin").exists()
    hub.break_at, hub.asked = None, []
    how = [h for _, _, _, h in fetch(out, hub=hub, train_shards=2)]
    assert how == ["present", "present", "present", "fetched"]
    assert set(hub.asked) & set(first) == {"datasets/manifest.json"}


def test_fetch_refuses_what_differs_from_the_record(hub, tmp_path):
    victim = "datasets/datasets/fineweb10B_sp1024/fineweb_val_000000.bin"
    hub.lie.add(victim)
    with pytest.raises(InputError, match="differs from the hub's record"):
        list(fetch(tmp_path / "out", hub=hub, train_shards=1))
    assert not (tmp_path / "out/datasets/fineweb10B_sp1024/fineweb_val_000000.bin").exists()


def test_fetch_refuses_a_malformed_shard(hub, tmp_path):
    name = "datasets/datasets/fineweb10B_sp1024/fineweb_val_000000.bin"
    hub.files[name] = hub.files[name][:-1]
    with pytest.raises(InputError, match=r"fineweb_val_000000\.bin"):
        list(fetch(tmp_path / "out", hub=hub, train_shards=1))


def test_fetch_plan_is_checked():
    manifest = {
        "datasets": [{"name": "fineweb10B_sp1024", "tokenizer_name": "t", "stats": {"files_val": 1, "files_train": 3}}],
        "tokenizers": [{"name": "t", "model_path": "../../etc/t.model"}],
    }
    with pytest.raises(InputError, match="unsafe path"):
        plan_fetch(manifest, "sp1024", 1)
    with pytest.raises(InputError, match="it has: sp1024"):
        plan_fetch(manifest, "sp9", 1)
    with pytest.raises(InputError, match="3 training shards, 7 asked for"):
        plan_fetch(manifest, "sp1024", 7)


def test_fetch_without_a_network_says_so_in_one_line(monkeypatch, tmp_path, capsys):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def unreachable(*args, **kwargs):
        raise ConnectionError("Name or service not known\nsecond line")

    monkeypatch.setattr(huggingface_hub.HfApi, "get_paths_info", unreachable)
    assert main(["data", "fetch", "--out", str(tmp_path / "d")]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("referee")]
    assert len(err) == 1 and "cannot reach the Hugging Face hub" in err[0] and "referee data build" in err[0]
