"""B5 network: nothing is fetched while the submission runs.

**What.** A script that downloads weights, tables, data or a tokenizer when it trains or evaluates:
``snapshot_download``, ``urllib``, ``requests``, ``torch.hub``, a shell that calls ``wget`` or ``curl``.

**Why.** The artifact must be self-contained. What comes over the network is not counted in the 16 MB,
can change after the verdict, and may hold anything.

**Ruling.** README: no external downloads, no network calls during evaluation. A README of #1707 that
promised automatic downloads was held against it.

**Look-alikes that are legal.** Calls of ``nvidia-smi``, ``gcc`` or a compressor (many merged scripts); a
separate script that prepares the data; ``torch.distributed``, which talks to its own ranks only; a
fallback that installs a missing compressor (a warning: it needs the network and brings no content).

**How it is decided.** Calls are followed under their imported names, in code that the entry point
reaches. Only what fetches content is a breach.

**See also.** B2 (code that counts), B7 (the scored model is the artifact).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit import ir
from audit.context import Context
from audit.model import Confidence, Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.code import code_of, finding
from audit.rules.flow import holds, violated

RULE = Rule(
    id="B5",
    name="network",
    title="Nothing is fetched over the network while it runs",
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
]  # fmt: skip
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
]  # fmt: skip


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    code = code_of(ctx)
    found: list[Finding] = []
    for place, call, name in code.calls():
        if _FETCH.match(name):
            found.append(finding(RULE, code, place, call, f"{name} fetches content over the network"))
        elif _SHELL.match(name):
            words = " ".join(_words(call))
            if (tool := _FETCHER.search(words)) and (
                tool[1] != "git" or re.search(r"git (clone|fetch|pull|lfs)", words)
            ):
                # A clone of the repository at the start is how scripts set themselves up; what it brings is not told.
                sure: Confidence = "low" if tool[1] == "git" else "high"
                message = f"a shell command calls {tool[1]}, which fetches content"
                found.append(finding(RULE, code, place, call, message, confidence=sure))
            elif (tool := _INSTALLER.search(words)) and "install" in words:
                found.append(
                    finding(RULE, code, place, call, f"{tool[1]} installs a package at run time, which needs the network",
                            confidence="low")
                )  # fmt: skip
    found.sort(key=lambda f: (f.active == "no", f.confidence == "low", f.path, f.line))
    yield from found
    if certain := [f for f in found if f.active == "yes" and f.confidence == "high"]:
        yield violated(RULE, certain)
    else:
        yield holds(RULE, "no reached call fetches content over the network")


def _words(call: ir.Call) -> Iterator[str]:
    """The constant strings among a call's arguments, in their order."""
    todo = list(reversed([*call.args, *(v for _, v in call.keywords)]))
    while todo:
        node = todo.pop()
        if isinstance(node, ir.Const) and isinstance(node.value, str):
            yield node.value
        todo += reversed(ir.children(node))
