"""Places in the stream: which offset a value was read at, whatever the spelling."""

from __future__ import annotations

import pytest

from audit.lower import lower
from audit.rules.flow import PRELUDE
from audit.trace import trace
from audit.trace.caches import cache_reads

BODY = """\
table = np.zeros(1 << 20)
stream = val.numpy()
total = 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = np.exp(-nll(model, x, y)[0].numpy())
{address}
    q = table[key] / 100
    total -= np.log(0.9 * p + 0.1 * q).sum()
    np.add.at(table, key, 1)
print(f"val_bpb:{{total / 0.6931471805599453 / n_bytes:.4f}}")
"""
TARGET = {
    "an array of places": "    at = np.arange(w + 1, w + 1025)\n    key = (stream[at - 1] * 31 + stream[at]) % 1048576",
    "slices": "    key = (stream[w : w + 1024] * 31 + stream[w + 1 : w + 1025]) % 1048576",
    "one chunk cut twice": "    c = stream[w : w + 1025]\n    key = (c[:-1] * 31 + c[1:]) % 1048576",
    "a copied array": "    c = np.zeros(1024, dtype=np.int64)\n    c[:] = stream[w + 1 : w + 1025]\n    key = (stream[w : w + 1024] * 31 + c) % 1048576",
    "an offset in a variable": "    one = w + 1\n    key = (stream[w : w + 1024] * 31 + stream[one : one + 1024]) % 1048576",
}
CONTEXT = {
    "an array of places": "    at = np.arange(w + 1, w + 1025)\n    key = (stream[at - 1] * 31 + stream[at - 2]) % 1048576",
    "slices": "    key = (stream[w : w + 1024] * 31 + stream[w - 1 : w + 1023]) % 1048576",
    "a loop over the context": "    at = np.arange(w + 1, w + 1025)\n    key = np.zeros(1024, dtype=np.int64)\n    for k in range(1, 5):\n        key = (key * 31 + stream[at - k]) % 1048576",
    "an unknown step back": "    at = np.arange(w + 1, w + 1025)\n    back = int(os.environ.get('BACK', '2')) if w else len(stream) % 7 + 1\n    key = (stream[at - 1] * 31 + stream[at - back]) % 1048576",
}


def _reads(address: str):
    result = trace({"t.py": lower(PRELUDE + BODY.format(address=address), "t.py")}, "t.py", budget=20.0)
    assert result.exhausted is None
    return [r for r in cache_reads(result) if r.reported]


@pytest.mark.parametrize("address", TARGET.values(), ids=TARGET.keys())
def test_the_scored_token_in_an_address(address):
    assert any(r.target and r.context for r in _reads(address))


@pytest.mark.parametrize("address", CONTEXT.values(), ids=CONTEXT.keys())
def test_earlier_tokens_alone(address):
    reads = _reads(address)
    assert reads and not any(r.target for r in reads)
