"""Training batches: which windows (sampler), their tokens (loader), and the way to the device (prefetch)."""

from reference_model.data.loader import Loader
from reference_model.data.sampler import Sampler

__all__ = ["Loader", "Sampler"]
