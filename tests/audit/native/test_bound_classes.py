"""Compiled classes that Python holds through a binding (nanobind, pybind11), with arrays instead of pointers."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.native import read_native
from audit.rules.flow import PRELUDE

CLASS = """
#include <cstdint>
class Guesser {
    uint64_t run_ = 0; uint32_t inside_ = 0; int best_[4096];
    const int64_t* stream_ = nullptr; const uint8_t* starts_ = nullptr;
    static void addresses(const int64_t* t, int64_t p, uint64_t* out) {
        uint64_t h = 0;
        for (int k = 0; k < 4; k++) { h ^= uint64_t(t[p - k - 1]) * 0x9E3779B1u; out[k] = h; }
    }
    void guess(bool begins, uint64_t k, int& out, double& weight) {
        if (begins) { out = -1; weight = 0.0; return; }
        out = best_[k & 4095]; weight = 1.5;
    }
    void take(uint64_t k, uint16_t token, bool begins) { best_[k & 4095] = token; inside_ = begins ? 0 : inside_ + 1; }
public:
    void attach(ARRAY_IN t, BYTES_IN s) { stream_ = t.data(); starts_ = s.data(); }
    void fill(ARRAY_IN where, HINTS hints, WEIGHTS weights) {
        const int64_t* at = where.data();
        int32_t* h = hints.MUTABLE(); double* w = weights.MUTABLE();
        uint64_t address[4];
        for (int i = 0; i < int(where.shape(0)); i++) {
            int64_t p = at[i];
            auto token = uint16_t(stream_[p]);
            bool begins = starts_ && starts_[token];
            bool asked = starts_ && starts_[stream_[PLACE]];
            addresses(stream_, p, address);
            int hint; double weight;
            guess(asked, address[3], hint, weight);
            h[i] = hint; w[i] = weight;
            take(address[3], token, begins);
        }
    }
};
"""
BINDINGS = {
    "nanobind": {
        "ARRAY_IN": "nb::ndarray<const int64_t, nb::ndim<1>>", "BYTES_IN": "nb::ndarray<const uint8_t, nb::ndim<1>>",
        "HINTS": "nb::ndarray<int32_t, nb::ndim<1>>", "WEIGHTS": "nb::ndarray<double, nb::ndim<1>>", "MUTABLE": "data",
    },
    "pybind11": {
        "ARRAY_IN": "py::array_t<int64_t>", "BYTES_IN": "py::array_t<uint8_t>", "HINTS": "py::array_t<int32_t>",
        "WEIGHTS": "py::array_t<double>", "MUTABLE": "mutable_data",
    },
    "torch": {
        "ARRAY_IN": "torch::Tensor", "BYTES_IN": "torch::Tensor", "HINTS": "torch::Tensor", "WEIGHTS": "torch::Tensor",
        "MUTABLE": "data_ptr<double>",
    },
}  # fmt: skip
USED = PRELUDE + """\
from guesses import Guesser
import threading
from pathlib import Path
folder = Path(os.environ.get("KEPT", "/tmp/kept_" + str(os.getpid())))
guesser = Guesser()
guesser.attach(val.numpy(), np.zeros(1024, dtype=np.uint8))
hints, weights = np.zeros(val.numel() + 1, dtype=np.int32), np.zeros(val.numel() + 1)
def work():
    guesser.fill(np.arange(1, val.numel() + 1), hints[1:], weights[1:])
thread = threading.Thread(target=work)
thread.start()
thread.join()
np.save(folder / "hints.npy", hints)
np.save(folder / "weights.npy", weights)
guesses = torch.from_numpy(np.load(folder / "hints.npy")).long()
raised = torch.from_numpy(np.load(folder / "weights.npy"))
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    g, b = guesses[None, w + 1 : w + 1025], raised[None, w + 1 : w + 1025]
    with torch.no_grad():
        logits = model(x)
        loss = F.cross_entropy(logits.transpose(1, 2), y, reduction="none")
        p = torch.softmax(logits, -1).gather(2, g.clamp(min=0)[..., None])[..., 0]
    given = (g >= 0).float()
    loss = loss + given * (torch.log(1 + p * (torch.exp(b) - 1)) - b * (y == g).float())
    total += loss.sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


def source(binding: str, place: str) -> str:
    text = CLASS.replace("PLACE", place)
    for name, written in BINDINGS[binding].items():
        text = text.replace(name, written)
    return text


@pytest.mark.parametrize("binding", BINDINGS)
def test_arrays_of_a_binding_are_followed_like_pointers(binding):
    for place, leaks in (("p - 1", False), ("p", True)):
        made = {f.name: f for f in read_native({"g.cpp": source(binding, place)}, [])}["fill"]
        assert {o.name: bool(o.leak) for o in made.outputs.values()} == {"hints": leaks, "weights": leaks}, place
        assert made.hints


def test_what_a_method_of_a_compiled_class_fills_reaches_the_score():
    def audited(place: str):
        files = {"train_gpt.py": USED, "guesses.cpp": source("nanobind", place)}
        return audit_files(text_files(files, "train_gpt.py"), Options())

    assert audited("p - 1").verdict == "clean"
    found = audited("p")
    assert {(f.rule, f.path) for f in found.findings if f.severity == "violation"} == {("F7", "guesses.cpp")}
