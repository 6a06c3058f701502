"""The artifact: grids, compressors and the hardened container of a compressed model."""

from harness.artifact.container import Artifact, Written, read_artifact, to_bytes, write_artifact
from harness.artifact.grids import Record, clip_range, float_record, integer_grid, quantized_record

__all__ = [
    "Artifact",
    "Record",
    "Written",
    "clip_range",
    "float_record",
    "integer_grid",
    "quantized_record",
    "read_artifact",
    "to_bytes",
    "write_artifact",
]
