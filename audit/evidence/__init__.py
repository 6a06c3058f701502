"""Reads what a submission says about itself: logs, ``submission.json``, README tables and sentences.

``read_facts`` turns the papers of a records folder into a flat list of `audit.model.Fact`, each with
its file and line; nothing is merged and nothing judged here. `audit.evidence.runs.view` groups the
facts again (one `Run` per training run) and says which runs stand behind the reported score; the
rules compare.
"""

#from audit.evidence.collect import read_facts
#from audit.evidence.runs import Evidence, Run, view

#__all__ = ["Evidence", "Run", "read_facts", "view"]
