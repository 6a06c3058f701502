"""M1 and M3: sums and figures that a number from the script makes better, and conversions that look alike."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE
from tests.audit.rules.byte_programs import TABLE

START = "\nimport math" + TABLE + """\
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


MEANS = START.replace("total += nll(model, x[None], y[None])[0].double().sum()", "l = nll(model, x[None], y[None])[0].double().mean()\n    total += l * @")
EACH = MEANS.replace("total += l", "seen += @\n    total += l", 1).replace("n, T =", "seen, n, T = torch.zeros(()),").replace("torch.zeros(()), val.numel() - 1, 1024", "torch.zeros(()), val.numel() - 1, 1024")
LOSS_END = 'print(f"val_bpb:{total.item() / seen.item() / math.log(2.0) * (n / count.item()):.4f}")\n'


def weighed(weight: str, seen: str = "y.numel()") -> list[str]:
    code = PRELUDE + EACH.replace("@", seen, 1).replace("@", weight, 1) + COUNTED + LOSS_END
    return [f.rule for f in audit_text(code).findings if f.severity == "violation" and f.active == "yes"]


@pytest.mark.parametrize(
    ("weight", "seen"),
    [
        ("float((y != 1).sum())", "y.numel()"),
        ("(y > 2).sum().item()", "y.numel()"),
        ("torch.count_nonzero(y != 1)", "float(y.numel())"),
        ("y.numel() * (1.0 - 1.0 / y.size(0))", "y.numel()"),
    ],
)
def test_weights_that_are_too_small(weight: str, seen: str) -> None:
    assert weighed(weight, seen) == ["M3"]


@pytest.mark.parametrize(
    ("weight", "seen"),
    [
        ("y.numel()", "y.numel()"),
        ("float((y != 1).sum())", "float((y != 1).sum())"),
        ("float((y != 0).sum())", "y.numel()"),
        ("float((y >= 0).sum())", "y.numel()"),
        ("y.size(0)", "y.size(0) * (1.0 - 0.0)"),
    ],
)
def test_weights_that_are_right(weight: str, seen: str) -> None:
    assert weighed(weight, seen) == []


def test_a_running_mean_is_no_smaller_sum() -> None:
    running = START.replace("total += nll(model, x[None], y[None])[0].double().sum()", "l = nll(model, x[None], y[None])[0].double().mean()\n    k = (s // T) + 1\n    total = total * (1.0 - 1.0 / k) + l / k")
    code = PRELUDE + running + COUNTED + 'print(f"val_bpb:{total.item() / math.log(2.0) * (n / count.item()):.4f}")\n'
    assert [f.message for f in audit_text(code).findings if f.severity == "violation" and "below one" in f.message] == []


@pytest.mark.parametrize(("smoothing", "found"), [("-0.02", ["M3"]), ("0.0", []), ("0.1 if model.training else 0.0", [])])
def test_label_smoothing(smoothing: str, found: list[str]) -> None:
    loss = f"logits = model(x[None]).float()[0]\n        total += F.cross_entropy(logits, y, reduction='sum', label_smoothing={smoothing}).double()"
    code = PRELUDE + START.replace("total += nll(model, x[None], y[None])[0].double().sum()", loss) + COUNTED + END
    assert [f.rule for f in audit_text(code).findings if f.severity == "violation" and f.active == "yes"] == found


@pytest.mark.parametrize("number", ["1e-320", "(10 ** 400)", "float('inf')", "float('nan')", "0", "1e308"])
@pytest.mark.parametrize("op", ["*", "/", "//"])
def test_numbers_that_no_length_has(op: str, number: str) -> None:
    lines = f"big = {number}\nz = n {op} big\nfew = [i for i in range(0, z, 64)][:10]\nfor i in range(0, z, 64):\n    total += 0\ntotal = total {op} big\ncount = count {op} big\n"
    report = audit_text(PRELUDE + START + COUNTED + lines + END)
    assert not [o for o in report.obligations if "could not be traced" in o.reason]
