"""B5 network: nothing is fetched while the submission runs.

**What.** A script that downloads weights, tables, data or a tokenizer when it trains or evaluates:
``snapshot_download``, ``urllib``, ``requests``, ``torch.hub``, ``from_pretrained`` of a hub's name, a socket
that is read from, a shell that calls ``wget`` or ``curl``.

**Why.** The artifact must be self-contained. What comes over the network is not counted in the 16 MB,
can change after the verdict, and may hold anything.

**Ruling.** README: no external downloads, no network calls during evaluation. A README of #1707 that
promised automatic downloads was held against it.

**Look-alikes that are legal.** Calls of ``nvidia-smi``, ``gcc`` or a compressor (many merged scripts); a
separate script that prepares the data, or a branch for that which the reported run did not take;
``torch.distributed`` and sockets of the same machine, which talk to their own ranks only; models loaded from
a folder that the script wrote; a fallback that installs a missing compressor (a warning: it needs the network
and brings no content).

**How it is decided.** Calls are followed under their imported names, in code that the entry point
reaches. Only what fetches content is a breach. A call in a branch that the configuration closes is a note, one that
only the command line opens is unknown; whether a file is there is no setting, and a download for a missing one is
active.

**See also.** B2 (code that counts), B7 (the scored model is the artifact).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Confidence, Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.code import Code, Place, code_of, finding
from audit.rules.flow import holds, violated

RULE = Rule(
    id="B5",
    name="network",
    title="Nothing is fetched over the network while it runs",
    breach="Network access while it runs",
    illegal="INVALID",
    authority="README",
    severity="violation",
)

_FETCH = re.compile(
    r"^(urllib\.request\.(urlopen|urlretrieve|Request)|requests\.(get|post|put|Session|request)|httpx\.\w+"
    r"|huggingface_hub\.(snapshot_download|hf_hub_download|HfApi|HfFileSystem)|wget\.download|gdown\.\w+"
    r"|torch\.hub\.(load|load_state_dict_from_url|download_url_to_file)|datasets\.load_dataset|boto3\.\w+"
    r"|http\.client\.\w+Connection|ftplib\.\w+|kagglehub\.\w+|smart_open\.open)$"
)
_SHELL = re.compile(
    r"^(subprocess\.(run|call|check_call|check_output|Popen|getoutput)|os\.(system|popen|exec\w+))$"
)
_FETCHER = re.compile(r"(?:^|[\s/;&|])(wget|curl|aria2c|gsutil|rclone|huggingface-cli|hf|git)(?:$|\s)")
#: loaders that take a folder or the name of a model on a hub
_PRETRAINED = re.compile(
    r"^(transformers|diffusers|tokenizers|peft|open_clip|sentence_transformers|mamba_ssm)\b.*\.from_pretrained$"
)
_RECEIVES = frozenset(["recv", "recv_into", "recvfrom", "recvmsg", "makefile"])
#: hosts that are the machine itself, and paths of local sockets
_OWN_HOST = re.compile(r"$|localhost|127\.|0\.0\.0\.0|::1?$|/")
_INSTALLER = re.compile(r"(?:^|[\s/;&|])(pip3?|apt|apt-get|conda|uv)(?:$|\s)")

_HEAD = "import os\nimport torch\n"
ILLEGAL = [
    Example(
        name="weights from a hub before the evaluation",
        code=_HEAD + (
            "from huggingface_hub import hf_hub_download as fetch\n\n"
            "def load(model):\n"
            "    path = fetch('someone/head', 'head.pt')\n"
            "    model.load_state_dict(torch.load(path))\n\n"
            "load(torch.nn.Linear(4, 4))\n"
        ),
        lines=(6,),
    ),
    Example(
        name="a table by a shell command",
        code=_HEAD + "import subprocess\nsubprocess.run(['wget', '-q', 'https://example.org/table.bin'])\nprint(os.listdir())\n",
        lines=(4,),
    ),
    Example(
        name="content from another machine by a socket",
        code=_HEAD + "import socket\nc = socket.create_connection(('10.0.0.2', 9000))\nprint(c.recv(1 << 20))\n",
        lines=(4,),
    ),
    Example(
        name="a model by its name",
        code=_HEAD + "from transformers import AutoModel\nprint(AutoModel.from_pretrained('gpt2'))\n",
        lines=(4,),
    ),
    Example(
        name="a download where the file is not there",
        code=_HEAD + "import urllib.request\nif not os.path.exists('w.pt'):\n    urllib.request.urlretrieve('https://example.org/w.pt', 'w.pt')\n",
        lines=(5,),
    ),
]  # fmt: skip
_PREPARES = "    urllib.request.urlretrieve('https://example.org/shard.bin', 'shard.bin')\n"
LEGAL = [
    Example(
        name="tools of the machine",
        code=_HEAD + (
            "import subprocess\n"
            "print(subprocess.run(['nvidia-smi'], capture_output=True, text=True).stdout)\n"
            "subprocess.run(['gcc', '-O3', '-shared', '-o', 'h.so', 'h.c'], check=True)\n"
        ),
    ),
    Example(
        name="a download that nothing calls",
        code=_HEAD + "import urllib.request\n\ndef fetch(url):\n    return urllib.request.urlopen(url).read()\n\nprint('no')\n",
    ),
    Example(
        name="data prepared on demand, by a knob that nobody set",
        code=_HEAD + "import urllib.request\nif os.environ.get('PREPARE', '0') == '1':\n" + _PREPARES,
    ),
    Example(
        name="data prepared on demand, by an option that nobody gave",
        code=_HEAD + (
            "import argparse, urllib.request\n"
            "p = argparse.ArgumentParser()\n"
            "p.add_argument('--prepare', action='store_true')\n"
            "args = p.parse_args()\n"
            "if args.prepare:\n" + _PREPARES
        ),
    ),
    Example(
        name="sockets of the own machine",
        code=_HEAD + "import socket\nc = socket.create_connection(('127.0.0.1', int(os.environ['PORT'])))\nprint(c.recv(4))\n",
    ),
    Example(
        name="a model from a folder",
        code=_HEAD + "from transformers import AutoModel\nprint(AutoModel.from_pretrained('./run/model'))\n",
    ),
]  # fmt: skip


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    code = code_of(ctx)
    found = [
        finding(RULE, code, place, call, told[0], confidence=told[1])
        for place, call, name in code.calls()
        if (told := _fetched(call, name) or _from_hub(code, call, name) or _received(code, place, call, name)) is not None
    ]
    found.sort(key=lambda f: (_ORDER.index(f.active), f.confidence == "low", f.path, f.line))
    yield from found
    if certain := [f for f in found if f.active == "yes" and f.confidence == "high"]:
        yield violated(RULE, certain)
    else:
        yield holds(RULE, "no reached call fetches content over the network")


_ORDER = ("yes", "unknown", "no")
#: what a call does, and how sure that is
Told = tuple[str, Confidence] | None


def _fetched(call: ir.Call, name: str) -> Told:
    if _FETCH.match(name):
        return f"{name} fetches content over the network", "high"
    if not _SHELL.match(name):
        return None
    words = " ".join(_words(call))
    if (tool := _FETCHER.search(words)) and (tool[1] != "git" or re.search(r"git (clone|fetch|pull|lfs)", words)):
        # A clone of the repository at the start is how scripts set themselves up; what it brings is not told.
        # So is a fetch of pip itself, where the machine has none.
        setup = tool[1] == "git" or "get-pip" in words
        return f"a shell command calls {tool[1]}, which fetches content", "low" if setup else "high"
    if (tool := _INSTALLER.search(words)) and "install" in words:
        return f"{tool[1]} installs a package at run time, which needs the network", "low"
    return None


def _from_hub(code: Code, call: ir.Call, name: str) -> Told:
    """``from_pretrained("name")``; a folder is read without the network, and so is what ``save_pretrained`` wrote."""
    if not _PRETRAINED.match(name):
        return None
    offline = dict(call.keywords).get("local_files_only")
    if isinstance(offline, ir.Const) and offline.value:
        return None
    source, message = code.first_text(call), f"{name} fetches a model by its name"
    if source is None:
        return f"{message}, unless the name is that of a folder", "low"
    written = (w.rstrip("/") for _, c, _ in code.calls() if _saves(c) for w in _words(c))
    return None if re.match(r"[./~]", source) or source.rstrip("/") in written else (message, "high")


def _saves(call: ir.Call) -> bool:
    return isinstance(call.func, ir.Attr) and call.func.attr == "save_pretrained"


def _received(code: Code, place: Place, call: ir.Call, name: str) -> Told:
    """A connection that something is read from, to another machine than those of the run."""
    if name != "socket.create_connection" and not _of_socket(code, place, call):
        return None
    if not any(_RECEIVES & p.names for p in code.places if p.path == place.path):
        return None
    host = code.first_text(call)
    if host is not None and _OWN_HOST.match(host):
        return None
    mentioned = (n.attr if isinstance(n, ir.Attr) else n.value for a in call.args for n in ir.walk(a) if isinstance(n, (ir.Attr, ir.Const)))
    if any(x in ("MASTER_ADDR", "gethostname", "AF_UNIX") for x in mentioned):
        return None
    return "a socket receives content over the network", "high"


def _of_socket(code: Code, place: Place, call: ir.Call) -> bool:
    """``s.connect(…)`` of a socket that this file made."""
    if not (isinstance(call.func, ir.Attr) and call.func.attr == "connect"):
        return False
    pairs: list[tuple[Any, Any]] = [(call.func.value, call.func.value)]
    for near in (p for p in code.places if p.path == place.path):
        for node in near.nodes(ir.Assign, ir.With):
            if isinstance(node, ir.Assign):
                pairs += [(t, node.value) for t in node.targets]
            else:
                pairs += [(t, e) for e, t in node.items]
    name = code.dotted(place, call.func.value)
    return any(
        isinstance(value, ir.Call) and code.dotted(place, value.func) == "socket.socket"
        and (target is value or (name and code.dotted(place, target) == name))
        for target, value in pairs
    )  # fmt: skip


def _words(call: ir.Call) -> Iterator[str]:
    """The constant strings among a call's arguments, in their order."""
    todo = list(reversed([*call.args, *(v for _, v in call.keywords)]))
    while todo:
        node = todo.pop()
        if isinstance(node, ir.Const) and isinstance(node.value, str):
            yield node.value
        todo += reversed(ir.children(node))
