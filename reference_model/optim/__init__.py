"""Muon in banks for the matrices inside blocks, AdamW for the rest."""

from reference_model.optim.build import Optimizers
from reference_model.optim.muon import ParallelMuon

__all__ = ["Optimizers", "ParallelMuon"]
