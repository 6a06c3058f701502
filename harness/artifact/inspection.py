"""What an artifact spends its bytes on, tensor by tensor; the figures behind ``referee inspect``."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.artifact import rowcoder
from harness.artifact.container import PREAMBLE, Artifact
from harness.artifact.grids import FLOAT_GRIDS, Record

#: The contest's limit for code and compressed model together.
CAP = 16_000_000


def order0_bits(record: Record) -> float:
    """Order-0 entropy of a tensor's integers, bits in all: what an ideal coder of one fixed table needs."""
    counts = np.bincount(record.values.reshape(-1).astype(np.int64) + 128).astype(np.float64)
    counts = counts[counts > 0]
    return (
        float(counts.sum() * np.log2(counts.sum()) - (counts * np.log2(counts)).sum()) if counts.size else 0.0
    )


def examine(artifact: Artifact) -> dict[str, Any]:
    """A JSON-able report. Bytes per tensor: exact for the ``rows`` codec, else the plane's by entropy share."""
    sections = {section["plane"]: section for section in artifact.header["sections"]}
    quantized = [r for r in artifact.records if r.quantized]
    entropies = {r.name: order0_bits(r) for r in quantized}
    if sections["codes"]["codec"] == "rows":
        code_bytes = rowcoder.tensor_bytes(artifact.records)
    else:
        # A general compressor runs over all tensors at once; what one tensor cost is its share of the entropy.
        total = sum(entropies.values()) or 1.0
        code_bytes = {name: sections["codes"]["packed"] * bits / total for name, bits in entropies.items()}
    rest = {
        plane: sections[plane]["packed"] / max(1, sections[plane]["raw"]) for plane in ("halves", "words")
    }
    rows = []
    for record in artifact.records:
        if record.quantized:
            used = code_bytes.get(record.name, 0.0) + rest["halves"] * 2 * (
                record.scales.size + record.columns.size
            )
        else:
            used = (
                rest["words" if record.grid == "fp32" else "halves"] * FLOAT_GRIDS[record.grid] * record.size
            )
        rows.append(
            {
                "name": record.name,
                "shape": list(record.shape),
                "grid": record.grid,
                "bits_per_weight": 8 * used / max(1, record.size),
                "entropy": entropies[record.name] / max(1, record.size) if record.quantized else None,
                "bytes": used,
                "share": used / artifact.file_bytes,
            }
        )
    parameters = sum(r.size for r in artifact.records)
    return {
        "path": artifact.path,
        "sha256": artifact.digest,
        "family": artifact.family,
        "config": artifact.config,
        "recipe": artifact.header["recipe"],
        "file_bytes": artifact.file_bytes,
        "header_bytes": artifact.file_bytes - PREAMBLE.size - sum(s["packed"] for s in sections.values()),
        "sections": artifact.header["sections"],
        "parameters": parameters,
        "bytes_per_parameter": artifact.file_bytes / max(1, parameters),
        "cap": CAP,
        "tensors": rows,
    }
