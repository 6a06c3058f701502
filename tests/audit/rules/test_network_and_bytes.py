"""Downloads in branches that the reported run did not take, and byte tables in all their spellings.

Rules B5 and M1 read plain source. Both must tell what counts from what only looks like it: a script may hold the
download that prepares its data, and a table may measure pieces with or without their space mark.
"""

from __future__ import annotations

import time

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.model import Finding

FETCH = "snapshot_download('someone/data', repo_type='dataset')"
HEAD = "import os, sys, argparse\nfrom huggingface_hub import snapshot_download\n"


def found(rule: str, code: str, readme: str = "") -> list[Finding]:
    files = {"train_gpt.py": code} | ({"README.md": readme} if readme else {})
    options = Options(rules=frozenset([rule]))
    return audit_files(text_files(files, "train_gpt.py"), options).findings


def reached(code: str, readme: str = "") -> tuple[str, str | None]:
    (only,) = found("B5", HEAD + code, readme)
    return only.active, only.gate


HELD = "class H:\n    prepare = {}\nh = H()\nif h.prepare:\n    " + FETCH + "\n"
OPTION = "p = argparse.ArgumentParser()\np.add_argument('--prepare', action='store_true')\nargs = p.parse_args()\n"


@pytest.mark.parametrize(
    "code",
    [
        f"if False:\n    {FETCH}\n",
        f"while 0:\n    {FETCH}\n",
        f"x = {FETCH} if False else 1\n",
        f"False and {FETCH}\n",
        HELD.format("False"),
        HELD.format("bool(int(os.environ.get('PREPARE', '0')))"),
        HELD.format("os.getenv('PREPARE', 'no').lower() in ('1', 'true', 'yes')"),
        f"if os.environ.get('PREPARE', '0') == '1':\n    {FETCH}\n    sys.exit()\n",
        f"if os.environ.get('PREPARE'):\n    {FETCH}\n",
        f"if 'PREPARE' in os.environ:\n    {FETCH}\n",
        OPTION + f"if args.prepare:\n    {FETCH}\n",
        f"if '--prepare' in sys.argv:\n    {FETCH}\n",
        f"def flag(name, default='0'):\n    return os.environ.get(name, default) == '1'\nif flag('PREPARE'):\n    {FETCH}\n",
        f"def main():\n    if os.environ.get('PREPARE', '0') != '1':\n        return\n    {FETCH}\nmain()\n",
        f"def prepare():\n    {FETCH}\nif '--prepare' in sys.argv:\n    prepare()\n",
        f"import torch\nPREPARE, RANK = 0, int(os.environ['RANK'])\nif RANK == 0 and PREPARE:\n    {FETCH}\n",
    ],
)
def test_a_download_that_the_configuration_closes_is_a_note(code: str) -> None:
    active, gate = reached(code)
    assert active == "no" and gate


@pytest.mark.parametrize(
    "code",
    [
        HELD.format("True"),
        f"if os.environ.get('OFFLINE', '0') == '0':\n    {FETCH}\n",
        f"if not os.path.exists('data'):\n    {FETCH}\n",
        f"if int(os.environ.get('RANK', '0')) == 0:\n    {FETCH}\n",
        # Written under the same name twice.
        "class H:\n    prepare = False\nh = H()\nh.prepare = bool(os.listdir())\nif h.prepare:\n    " + FETCH + "\n",
        f"os.environ['PREPARE'] = '1'\nif os.environ.get('PREPARE', '0') == '1':\n    {FETCH}\n",
        f"done = False\nwhile not done:\n    {FETCH}\n    done = True\n",
        f"if os.environ.get('QUICK', '0') == '1':\n    sys.exit()\n{FETCH}\n",
    ],
)
def test_what_is_not_known_to_be_closed_is_active(code: str) -> None:
    assert reached(code)[0] == "yes"


def test_the_papers_open_a_branch() -> None:
    for code, command in (
        (f"if os.environ.get('PREPARE', '0') == '1':\n    {FETCH}\n", "PREPARE=1 python train_gpt.py"),
        (OPTION + f"if args.prepare:\n    {FETCH}\n", "python train_gpt.py --prepare"),
        (f"if '--prepare' in sys.argv:\n    {FETCH}\n", "python train_gpt.py --prepare"),
    ):
        assert reached(code, f"```bash\n{command}\n```\n")[0] == "yes"


def test_what_only_the_command_line_tells_is_unknown() -> None:
    assert reached(f"if len(sys.argv) > 1 and sys.argv[1] == 'prepare':\n    {FETCH}\n")[0] == "unknown"


def test_names_that_are_made_of_each_other_are_read_in_no_time() -> None:
    """Every name is handed on under every other one: followed one by one, that would take for ever."""
    names = [f"n{i}" for i in range(40)]
    every = ", ".join(f"{a}=o.{b}" for a in names for b in names if a != b)
    code = f"def f(**k):\n    return k\no = f({every})\n" + "".join(f"x = f({a}=o.{b})\n" for a in names for b in names)
    start = time.process_time()
    assert reached(code + f"if o.n0 and o.n1:\n    {FETCH}\n")[0] == "yes"
    assert time.process_time() - start < 20


def test_two_options_of_one_name_leave_the_first_default() -> None:
    options = (
        "p = argparse.ArgumentParser()\np.add_argument('--prepare', type=int, default=0)\n"
        "p.add_argument('--no-prepare', dest='prepare', action='store_const', const=0)\nargs = p.parse_args()\n"
    )
    code = options + f"if args.prepare:\n    {FETCH}\n"
    assert reached(code)[0] == "no"
    assert reached(code, "```bash\npython train_gpt.py --prepare 1\n```\n")[0] == "yes"


@pytest.mark.parametrize(
    ("option", "typed", "active"),
    [
        ("'--skip', dest='prepare', action='store_false'", "", "yes"),
        ("'--skip', dest='prepare', action='store_false'", "--skip", "no"),
        ("'--prepare', default='no', type=lambda x: x == 'yes'", "--prepare yes", "yes"),
        ("'--prepare', default=0, type=lambda x: x == 'yes'", "--prepare no", "no"),
        ("'--fetch', dest='prepare', action='store_const', const=1", "", "no"),
        ("'--fetch', dest='prepare', action='store_const', const=1", "--fetch", "yes"),
    ],
)
def test_what_the_parser_makes_of_an_option(option: str, typed: str, active: str) -> None:
    parser = f"p = argparse.ArgumentParser()\np.add_argument({option})\nargs = p.parse_args()\n"
    command = f"```bash\npython train_gpt.py {typed}\n```\n"
    assert reached(parser + f"if args.prepare:\n    {FETCH}\n", command)[0] == active


@pytest.mark.parametrize(
    ("code", "active"),
    [
        ("import socket\ns = socket.socket()\ns.connect(('10.0.0.2', 9000))\nprint(s.recv(9))\n", True),
        ("import socket\nwith socket.socket() as s:\n    s.connect(('10.0.0.2', 9000))\n    print(s.makefile().read())\n", True),
        # A free port, the own address, the ranks of the run, a local socket; something that is called alike.
        ("import socket\ns = socket.socket()\ns.bind(('', 0))\nprint(s.getsockname())\n", False),
        ("import socket\ns = socket.socket()\ns.connect(('8.8.8.8', 80))\nprint(s.getsockname())\n", False),
        ("import socket\ns = socket.create_connection((os.environ['MASTER_ADDR'], 1))\nprint(s.recv(9))\n", False),
        ("import socket\nHOST = 'localhost'\ns = socket.create_connection((HOST, 1))\nprint(s.recv(9))\n", False),
        ("import sqlite3\ndb = sqlite3.connect('runs.db')\n", False),
        ("from transformers import AutoModel\nAutoModel.from_pretrained('gpt2')\n", True),
        ("from transformers import AutoModel\ndef load(name):\n    return AutoModel.from_pretrained(name)\nload(name=os.environ.get('BASE', 'gpt2'))\n", True),
        (
            "import torch.nn as nn\nfrom transformers import AutoModel\nclass Net(nn.Module):\n    def __init__(self, base):\n        super().__init__()\n"
            "        self.body = AutoModel.from_pretrained(base, trust_remote_code=True)\n    def forward(self, x):\n        return self.body(x)\n"
            "net = Net(base=os.environ.get('BASE', 'org/base-1b'))\n",
            True,
        ),
        ("from transformers import AutoModel\nAutoModel.from_pretrained('gpt2', local_files_only=True)\n", False),
        ("from transformers import AutoModel\nm.save_pretrained('run')\nAutoModel.from_pretrained('run')\n", False),
        ("class GPT:\n    @classmethod\n    def from_pretrained(cls, name):\n        return cls()\nGPT.from_pretrained('gpt2')\n", False),
    ],
)  # fmt: skip
def test_content_by_sockets_and_by_a_models_name(code: str, active: bool) -> None:
    assert [f.active for f in found("B5", "import os\n" + code)] == ["yes"] * active


# ------------------------------------------------------------------ bytes
TABLE = """\
import sentencepiece, torch
sp = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
V = sp.vocab_size()
size, lead, edge = torch.zeros(V), torch.zeros(V, dtype=torch.bool), torch.ones(V, dtype=torch.bool)
for t in range(V):
    edge[t] = sp.is_control(t)
    if sp.is_byte(t):
        size[t] = 1
        continue
    piece = sp.id_to_piece(t)
@
def count(before, target):
    n = @
    return n.sum()
print(count(torch.tensor([1]), torch.tensor([2])))
"""
MARKED = "    lead[t] = piece.startswith('\\u2581')\n"
FLAGGED = "size[target] + (lead[target] & ~edge[before])"
PLAIN = "size[target]"


def table(measure: str, count: str = FLAGGED, mark: str = MARKED) -> str:
    body = mark + "".join(f"    {line}\n" for line in measure.split("\n"))
    return TABLE.replace("@\n", body, 1).replace("@", count)


@pytest.mark.parametrize(
    ("measure", "count"),
    [
        ("size[t] = len(piece.replace('\\u2581', ' ').encode())", FLAGGED),
        ("piece = piece.replace('\\u2581', ' ')\nsize[t] = len(piece.encode())", FLAGGED),
        ("size[t] = len(piece.encode())", FLAGGED),
        ("size[t] = len(piece.encode())", PLAIN),
        ("size[t] = len(piece[1:].encode()) + 1 if lead[t] else len(piece.encode())", FLAGGED),
        ("size[t] = len(piece.lstrip('\\u2581').encode())", "size[target] + (lead[target] | ~edge[before])"),
        ("size[t] = len(piece.lstrip('\\u2581').encode())", "size[target] + lead[target].int() + (~edge[target]).int()"),
        ("size[t] = len(piece.replace('\\u2581', ' ').encode())", "size[ids[target]] + (lead[ids[target]] & ~edge[ids[before]])"),
        ("size[t] = len(piece.replace('\\u2581', ' ').encode())", "size[target] + torch.logical_and(lead[target], ~edge[before])"),
        ("size[t] = len(piece.replace('\\u2581', ' ').encode())", "size[target] + lead[target].int() * (1 - edge[before].int())"),
        ("if lead[t]:\n    piece = ' ' + piece[1:]\nsize[t] = len(piece.encode())", FLAGGED),
        ("if lead[t]:\n    piece = f' {piece[1:]}'\nsize[t] = len(piece.encode())", FLAGGED),
        ("size[t] = len((' ' + piece.lstrip('\\u2581')).encode()) if lead[t] else len(piece.encode())", FLAGGED),
        ("if lead[t]:\n    piece = piece[1:]\nsize[t] = len(piece.encode()) + lead[t]", FLAGGED),
        ("if lead[t]:\n    piece = piece[1:]\nsize[t] = len(piece.encode()) + (1 if piece_marked else 0)".replace("piece_marked", "lead[t]"), FLAGGED),
        ("bare = piece.lstrip('\\u2581')\nsize[t] = len(bare.encode())\nif lead[t]:\n    size[t] += 1", FLAGGED),
        ("size[t] = len(piece.lstrip('\\u2581').encode('utf-16'))", FLAGGED),
        ("size[t] = 3 if sp.is_byte(t) else len(piece.lstrip('\\u2581').encode())", FLAGGED),
        ("size[t] = len(piece.lstrip('\\u2581').encode())\nif sp.is_byte(t):\n    size[t] = 3", FLAGGED),
        ("size[t] = len(piece.lstrip('\\u2581').encode())", FLAGGED + "\n    n += lead[target] & ~edge[before]\n    n += lead[target]"),
    ],
)
def test_tables_that_count_too_many_bytes(measure: str, count: str) -> None:
    assert [f.active for f in found("M1", table(measure, count))] == ["yes"]


def test_pieces_measured_in_a_list_with_their_marks() -> None:
    code = TABLE.replace("    piece = sp.id_to_piece(t)\n@\n", "").replace("@", PLAIN)
    measured = "pieces = [sp.id_to_piece(i) for i in range(V)]\nsize = torch.tensor([1 if sp.is_byte(i) else len(p.encode()) for i, p in enumerate(pieces)])\n"
    assert len(found("M1", code.replace("def count", measured + "def count"))) == 1


@pytest.mark.parametrize(
    ("measure", "count"),
    [
        ("size[t] = len(piece.lstrip('\\u2581').encode())", FLAGGED),
        ("size[t] = len(piece.removeprefix('\\u2581').encode())", FLAGGED),
        ("if lead[t]:\n    piece = piece[1:]\nsize[t] = len(piece.encode())", FLAGGED),
        ("size[t] = len(piece[1:].encode()) if lead[t] else len(piece.encode())", FLAGGED),
        ("size[t] = len(piece.replace('\\u2581', '').encode())", FLAGGED),
        ("size[t] = len(piece.encode()) - (2 if lead[t] else 0)", PLAIN),
        ("size[t] = len(piece.replace('\\u2581', ' ').encode())", PLAIN),
        ("size[t] = len(piece[1:].encode()) if lead[t] else len(piece.replace('\\u2581', ' ').encode())", FLAGGED),
        ("size[t] = len(piece.lstrip('\\u2581').encode())", "size[target] + (~(~lead[target] | edge[before])).int()"),
        ("size[t] = len(piece.lstrip('\\u2581').encode())", "size[target] + torch.logical_and(lead[target], torch.logical_not(edge[before]))"),
        ("size[t] = len(piece.lstrip('\\u2581').encode())", "size[target] + (~no_mark[target] & ~edge[before]).int()"),
        ("if lead[t]:\n    piece = ' ' + piece[1:]\nsize[t] = len(piece.encode())", PLAIN),
        ("if lead[t]:\n    piece = ' ' + piece[1:]\nsize[t] = len(piece.encode())", PLAIN + "\n    n -= lead[target] & edge[before]"),
        ("text = ' ' + piece[1:]\nif lead[t]:\n    piece = piece[1:]\nsize[t] = len(piece.encode())", FLAGGED),
        ("size[t] = len(piece.lstrip('\\u2581').encode()) + lead[t]", PLAIN),
        ("if lead[t]:\n    piece, marks = piece[1:], 1\nsize[t] = len(piece.encode())\nif lead[t]:\n    number[t] += 1", FLAGGED),
        ("size[t] = len(piece.lstrip('\\u2581').encode('utf-8'))\nvalue[t] = 2 if sp.is_byte(t) else 3", FLAGGED),
        ("size[t] = len(piece.lstrip('\\u2581').encode(encoding='utf8'))\nif sp.is_byte(t):\n    kind[t] = 6", FLAGGED),
        ("size[t] = len(piece.lstrip('\\u2581').encode())", PLAIN + "\n    n += lead[target] & ~edge[before]\n    n += lead[first] & ~edge[last]"),
    ],
)
def test_tables_that_count_each_byte_once(measure: str, count: str) -> None:
    assert found("M1", table(measure, count)) == []


def test_a_second_table_with_the_space_inside_is_no_second_count() -> None:
    # The text of the pieces for something else; the denominator is made of the other table.
    other = "def texts():\n    return sum(1 if sp.is_byte(i) else len(sp.id_to_piece(i).replace('\\u2581', ' ').encode()) for i in range(V))\nprint(texts())\n"
    right = table("size[t] = len(piece.lstrip('\\u2581').encode())")
    assert found("M1", right + other) == []


STRIPPED = "    if piece.startswith(@):\n        lead[t], piece = True, piece[1:]\n"


@pytest.mark.parametrize("mark", ["'?'", "' '", "'\\x18'", "'\\xe2\\x96\\x81'", "'Γûü'"])
def test_a_damaged_mark_takes_nothing_off(mark: str) -> None:
    code = table("size[t] = len(piece.encode())", mark=STRIPPED.replace("@", mark))
    assert ["space mark" in f.message for f in found("M1", code)] == [True]
    # A log with the right bytes per token shows that another script ran: 2.4359 with SP1024.
    files = {"train_gpt.py": code, "train.log": "final_exact val_loss:1.88000000 val_bpb:1.11344758\n"}
    assert audit_files(text_files(files, "train_gpt.py"), Options(rules=frozenset(["M1"]))).findings == []


@pytest.mark.parametrize(
    "mark",
    [
        STRIPPED.replace("@", "'\\u2581'"),
        STRIPPED.replace("@", "chr(0x2581)"),
        STRIPPED.replace("@", "MARK"),
        STRIPPED.replace("@", "'?'") + "    piece = piece.replace(MARK, '')\n",
    ],
)
def test_what_may_be_the_mark_does(mark: str) -> None:
    assert found("M1", table("size[t] = len(piece.encode())", mark=mark)) == []


def test_pieces_of_ones_own_may_be_written_with_spaces() -> None:
    code = table("size[t] = len(piece.encode())", mark=STRIPPED.replace("@", "' '"))
    assert len(found("M1", code)) == 1
    assert found("M1", code + "class Words:\n    def id_to_piece(self, t):\n        return words[t]\n") == []


@pytest.mark.parametrize(
    ("command", "severity"),
    [
        ('["curl", "-sS", "https://bootstrap.pypa.io/get-pip.py", "-o", "get-pip.py"]', "warning"),
        ('["curl", "-sS", "https://example.org/head.pt", "-o", "head.pt"]', "violation"),
    ],
)
def test_pip_itself_is_set_up_like_what_it_installs(command: str, severity: str) -> None:
    (only,) = found("B5", f"import subprocess\nsubprocess.check_call({command})\n")
    assert only.severity == severity
