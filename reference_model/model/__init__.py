"""The model family "golf": every part of the contest's transformers, switched by ``ModelConfig``."""

from reference_model.model.golf import Golf

__all__ = ["Golf"]
