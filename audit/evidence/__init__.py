"""Reads what a submission says about itself: logs, ``submission.json``, README tables and sentences.

``read_facts`` turns the papers of a records folder into a flat list of `audit.model.Fact`, each with
its file and line; nothing is merged and nothing judged here.
"""

from audit.evidence.collect import read_facts

__all__ = ["read_facts"]
