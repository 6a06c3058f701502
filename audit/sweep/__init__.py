"""Audits every ref of a repository: in parallel, each in a process whose death is one line's finding.

`sweep` yields the submission objects in the order of the refs; results are kept in a cache keyed by
content, options and the auditor's own code, so that a killed sweep continues where it was.
"""

from __future__ import annotations

from audit.sweep.cache import Cache, code_digest
from audit.sweep.drive import Plan, Ref, sweep, sweep_refs

__all__ = ["Cache", "Plan", "Ref", "code_digest", "sweep", "sweep_refs"]
