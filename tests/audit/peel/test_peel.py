"""Every wrapper shape unpacks to its source; nothing is executed, and bombs stay small."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import time
import zlib

import brotli
import pytest
import zstandard

from audit.peel import peel

SOURCE = "import torch\n" + "".join(f"x{i} = {i}\n" for i in range(40)) + "loss.backward()\n"
DATA = SOURCE.encode()
RAW = [{"id": lzma.FILTER_LZMA2, "preset": 9}]


def b85(data: bytes) -> str:
    return repr(base64.b85encode(data))


WRAPPERS = {
    "lzma+b85": f"import lzma as L,base64 as B\nexec(L.decompress(B.b85decode({b85(lzma.compress(DATA))})))",
    "raw filters": f"import lzma,base64\nexec(lzma.decompress(base64.b85decode({b85(lzma.compress(DATA, lzma.FORMAT_RAW, filters=RAW))}),format=lzma.FORMAT_RAW,filters=[{{'id':lzma.FILTER_LZMA2,'preset':9}}]))",
    "zlib+b64": f"import zlib,base64\nexec(zlib.decompress(base64.b64decode({base64.b64encode(zlib.compress(DATA))!r})).decode())",
    "a85 from-import": f"from base64 import a85decode as a\nfrom zlib import decompress as d\nexec(d(a({base64.a85encode(zlib.compress(DATA))!r})))",
    "brotli": f"import brotli,base64\nexec(brotli.decompress(base64.b85decode({b85(brotli.compress(DATA))})))",
    "zstd": f"import zstandard,base64\nexec(zstandard.ZstdDecompressor().decompress(base64.b85decode({b85(zstandard.compress(DATA))})))",
    "bz2": f"import bz2,base64\nexec(bz2.decompress(base64.b85decode({b85(bz2.compress(DATA))})))",
    "gzip hex": f"import gzip\nexec(gzip.decompress(bytes.fromhex({gzip.compress(DATA).hex()!r})))",
    "several assignments": f"import zlib, base64\np = {b85(zlib.compress(DATA))}\nq = base64.b85decode(p)\nr = zlib.decompress(q)\ns = r.decode('utf-8')\nc = compile(s, 'x', 'exec')\nexec(c, globals())",
    "joined pieces": f"import zlib, base64\np = ''.join([{zlib.compress(DATA).hex()[:50]!r}, {zlib.compress(DATA).hex()[50:]!r}])\nexec(zlib.decompress(bytes.fromhex(p)))",
    "newlines removed": f"import zlib,base64\np='''{base64.b64encode(zlib.compress(DATA)).decode()[:60]}\n{base64.b64encode(zlib.compress(DATA)).decode()[60:]}'''.replace('\\n','')\nexec(zlib.decompress(base64.b64decode(p)))",
    "a function decodes": f"import zlib,base64\ndef u(b):\n    return zlib.decompress(base64.b85decode(b))\nexec(u({b85(zlib.compress(DATA))}))",
    "dunder import": f"exec(__import__('zlib').decompress(__import__('base64').b85decode({b85(zlib.compress(DATA))})))",
    "written and run": f"import zlib,base64,runpy\nopen('/tmp/y.py','wb').write(zlib.decompress(base64.b85decode({b85(zlib.compress(DATA))})))\nrunpy.run_path('/tmp/y.py', run_name='__main__')",
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapper_shapes(name: str) -> None:
    found = peel(WRAPPERS[name], "train_gpt.py")
    assert found.opaque is None
    assert found.text == SOURCE
    assert found.layers


def test_nested_wrappers_unpack_to_the_innermost() -> None:
    text = SOURCE
    for _ in range(3):
        text = f"import zlib,base64\nexec(zlib.decompress(base64.b85decode({b85(zlib.compress(text.encode()))})))"
    found = peel(text, "t.py")
    assert found.text == SOURCE
    assert len(found.layers) == 3


def test_a_sibling_that_is_executed() -> None:
    found = peel("exec(open('body.py').read())", "r/t.py", {"body.py": DATA}.get)
    assert (found.text, found.path, found.layers) == (SOURCE, "r/body.py", ["exec-sibling"])


def test_the_payload_in_a_sibling() -> None:
    wrapper = "import lzma\nexec(lzma.decompress(open('p.xz','rb').read()))"
    assert peel(wrapper, "t.py", {"p.xz": lzma.compress(DATA)}.get).text == SOURCE
    missing = peel(wrapper, "t.py")
    assert missing.opaque
    assert missing.line == 2


def test_environment_that_the_wrapper_sets_is_kept() -> None:
    text = (
        "import os\nos.environ['TTT_ENABLED'] = '1'\nos.environ.setdefault('A', '2')\n" + WRAPPERS["lzma+b85"]
    )
    assert peel(text, "t.py").env_defaults == {"TTT_ENABLED": "1", "A": "2"}


@pytest.mark.parametrize(
    "text",
    [
        "import zlib,base64\nprint(len(base64.b85decode(zlib.compress(b'x'))))\nloss.backward()\n",
        "import subprocess\nsubprocess.run(['nvidia-smi'])\nloss.backward()\nmodel.eval()\n",
        "x = 1\n", "", "def (:\n",
    ],
)  # fmt: skip
def test_plain_scripts_stay_as_they_are(text: str) -> None:
    found = peel(text, "t.py")
    assert (found.text, found.layers, found.opaque) == (text, [], None)


def test_what_cannot_be_followed_is_opaque() -> None:
    for text in (
        "import zlib, requests\nexec(zlib.decompress(requests.get('http://x').content))",
        "import zlib, base64, secret\nexec(zlib.decompress(base64.b85decode(secret.payload)))",
        "import zlib, base64\nexec(zlib.decompress(base64.b85decode('not a payload')))",
    ):
        found = peel(text, "t.py")
        assert found.opaque, text
        assert not found.bomb


def test_nothing_is_executed(tmp_path) -> None:
    mark = tmp_path / "mark"
    for text in (
        f"open({str(mark)!r}, 'w').write('x')",
        f"import os\nos.system('touch {mark}')",
        f"exec(\"open({str(mark)!r},'w')\")",
    ):
        peel(text, "t.py")
    assert not mark.exists()


def test_bombs_are_found_out_early() -> None:
    zeros = lzma.compress(b"\0" * 200_000_000, preset=0)
    start = time.process_time()
    found = peel(f"import lzma,base64\nexec(lzma.decompress(base64.b85decode({b85(zeros)})))", "t.py")
    assert found.bomb
    assert "MB" in (found.opaque or "")
    assert found.line == 2
    assert time.process_time() - start < 60
    for text in (
        "x = 'a' * 10**9\nexec(x)",
        "x = 'ab'\nfor i in range(60): x = x + x\nexec(x)",
        "exec('a' * (1 << 40))",
    ):
        assert peel(text, "t.py").opaque is not None, text


def test_a_wrapper_that_unpacks_to_itself_ends() -> None:
    assert peel("exec(open(__file__).read())", "t.py").opaque


BUNDLE = """\
import sys, types
def install(name, source):
    package, _, short = name.rpartition(".")
    if package:
        parent = types.ModuleType(package)
        parent.__path__ = []
        sys.modules[package] = parent
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, "<" + name + ">", "exec"), module.__dict__)
install("parts.learn", @)
install("parts.registry", "import importlib\\ndef find(name):\\n    place, _, short = name.partition(':')\\n    return getattr(importlib.import_module(place), short)\\n")
"""


def bundled(learns: str) -> str:
    from audit.rules.flow import PRELUDE

    learn = "import torch.nn.functional as F\ndef adapt(model, opt, x, y):\n" + "".join(
        f"    {line}\n" for line in learns.splitlines()
    )
    return BUNDLE.replace("@", repr(learn)) + PRELUDE + (
        "from parts.registry import find\nopt = torch.optim.SGD(model.parameters(), lr=1e-3)\n"
        "for c in range(0, val.numel() - 1025, 1024):\n"
        "    find('parts.learn:adapt')(model, opt, val[None, c : c + 1024], val[None, c + 1 : c + 1025])\n"
        'print(f"val_bpb:{evaluate(model, val):.4f}")\n'
    )


def test_modules_that_a_script_carries_as_text_are_read_under_their_names() -> None:
    from audit.context import Options
    from audit.engine import audit_files, text_files

    trains = "opt.zero_grad()\nF.cross_entropy(model(x).transpose(1, 2), y).backward()\nopt.step()"
    assert sorted(peel(bundled(trains), "train_gpt.py").extra_files) == ["parts/learn.py", "parts/registry.py"]
    found = audit_files(text_files({"train_gpt.py": bundled(trains)}, "train_gpt.py"), Options())
    assert {(f.rule, f.path, f.line) for f in found.findings if f.severity == "violation"} == {("F1", "parts/learn.py", 5)}
    found = audit_files(text_files({"train_gpt.py": bundled("return model")}, "train_gpt.py"), Options())
    assert found.verdict == "clean", found.reason
