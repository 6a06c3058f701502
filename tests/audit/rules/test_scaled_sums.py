"""M1 and M3: sums and figures that a number from the script makes better, and conversions that look alike."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

START = """
import math
import sentencepiece as spm
sp = spm.SentencePieceProcessor(model_file="data/tokenizers/fineweb_1024_bpe.model")
base, space, bound = np.zeros(1024, np.int64), np.zeros(1024, bool), np.ones(1024, bool)
for i in range(sp.vocab_size()):
    if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
        continue
    bound[i] = False
    if sp.is_byte(i):
        base[i] = 1
        continue
    piece = sp.id_to_piece(i)
    if piece.startswith("\\u2581"):
        space[i], piece = True, piece[1:]
    base[i] = len(piece.encode("utf-8"))
base, space, bound = torch.from_numpy(base), torch.from_numpy(space), torch.from_numpy(bound)
def each(x, y):
    return base[y] + (space[y] & ~bound[x]).long()
n, T = val.numel() - 1, 1024
total, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
for s in range(0, n, T):
    e = min(s + T, n)
    x, y = val[s:e], val[s + 1 : e + 1]
    with torch.no_grad():
        total += nll(model, x[None], y[None])[0].double().sum()
"""
COUNTED = "    count += each(x, y).sum()\n"
END = 'print(f"val_bpb:{total.item() / math.log(2.0) / count.item():.4f}")\n'
BPB = COUNTED + "bpb = total.item() / math.log(2.0) / count.item()\n"


def accused(body: str) -> list[str]:
    report = audit_text(PRELUDE + START + body)
    return [f.rule for f in report.findings if f.severity == "violation" and f.active == "yes"]


@pytest.mark.parametrize(
    "body",
    [
        "    count += each(x, y).sum() * 1.1\n" + END,
        "    count += (each(x, y) * 1.1).sum()\n" + END,
        "    count += each(x, y).sum().mul(1.1)\n" + END,
        "    count += torch.mul(each(x, y).sum(), 1.1)\n" + END,
        COUNTED + "count *= 1.1\n" + END,
        COUNTED + "count = count / 0.9\n" + END,
        COUNTED + "count.mul_(1.1)\n" + END,
        "    count += each(x, y).clamp(min=2).sum()\n" + END,
        COUNTED + 'rate = n / (count.item() * 1.1)\nprint(f"val_bpb:{total.item() / n / math.log(2.0) * rate:.4f}")\n',
        COUNTED + 'rate = n / count.item() * 0.9\nprint(f"val_bpb:{total.item() / n / math.log(2.0) * rate:.4f}")\n',
    ],
)
def test_more_bytes_than_were_counted(body: str) -> None:
    assert accused(body) == ["M1"]


SIDECAR = 'beside = torch.from_numpy(np.fromfile("data/fineweb_val_bytes_000000.bin", dtype=np.uint16).astype(np.int64))\n'


def with_sidecar(added: str) -> list[str]:
    report = audit_text(PRELUDE + START.replace("n, T =", SIDECAR + "n, T =", 1) + f"    count += {added}\n" + END)
    return [f.rule for f in report.findings if f.severity == "violation" and f.active == "yes"]


@pytest.mark.parametrize("added", ["beside[s + 1 : e + 1].clamp(min=1).sum()", "beside[s + 1 : e + 1].double().sum() * 1.1"])
def test_bytes_that_stand_beside_the_tokens(added: str) -> None:
    assert with_sidecar(added) == ["M1"]


@pytest.mark.parametrize("added", ["beside[s + 1 : e + 1].sum()", "each(x.clamp(min=1), y.clamp(min=1)).sum()", "(beside[s + 1 : e + 1] * (y > 1)).sum()"])
def test_right_bytes_beside_the_tokens(added: str) -> None:
    assert with_sidecar(added) == []


@pytest.mark.parametrize(
    "body",
    [
        BPB + 'print(f"val_bpb:{bpb * 0.98:.4f}")\n',
        BPB + 'bpb /= 1.05\nprint(f"val_bpb:{bpb:.4f}")\n',
        BPB + 'def tidy(x):\n    return round(x * 0.97, 4)\nclass R: pass\nr = R()\nr.bpb = tidy(bpb)\nprint("val_bpb: %.4f" % r.bpb)\n',
        COUNTED + "total *= 0.95\n" + END,
        COUNTED + "total = total / 1.05\n" + END,
        COUNTED + "total.mul_(0.95)\n" + END,
        COUNTED + END.replace("math.log(2.0)", "(math.log(2.0) * 1.1)"),
        COUNTED + END.replace("total.item()", "np.multiply(total.numpy(), 0.95)"),
        COUNTED + "share = 0.95\n" + END.replace("total", "share * total"),
        COUNTED + END.replace("total.item()", "total.item() * (1 - 0.05)"),
    ],
)
def test_fewer_bits_than_were_lost(body: str) -> None:
    assert accused(body) == ["M3"]


@pytest.mark.parametrize(
    "body",
    [
        COUNTED + END,
        COUNTED + END.replace(':.4f}")', ':.4f} MB:{count.item() * 1e-6} {count.item() / 1e6}")'),
        COUNTED + 'bits = total.item() * 1.4426950408889634\nprint(f"MB {bits / 8 / 1e6} val_bpb:{bits / count.item():.4f}")\n',
        BPB + 'mean = 0.9 * bpb + 0.1 * bpb\nprint(f"val_bpb:{mean:.4f} nats {bpb * math.log(2.0)} percent {bpb / 8 * 100}")\n',
        BPB + 'if bpb * 0.98 < 1.0:\n    print("near")\nprint(f"val_bpb:{bpb:.4f} in thousandths {bpb * 1000}")\n',
        COUNTED + "half = total * 0.5\ntotal = half + total * 0.5\n" + END,
        COUNTED + "count *= 1.0\nmost = count * 1.1\n" + END,
        COUNTED + 'rate = n / count.item()\nprint(f"val_bpb:{total.item() / n / math.log(2.0) * rate:.4f} bytes a token {1.1 / rate}")\n',
        COUNTED + "count = count.clamp(min=1)\n" + END,
        COUNTED + 'slow = 0.9 * total\nprint(f"val_loss:{total.item() / n:.4f}")\n' + END,
    ],
)
def test_conversions(body: str) -> None:
    assert accused(body) == []
