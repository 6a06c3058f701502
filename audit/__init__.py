"""The static and evidence auditor. Imports neither torch nor the other wings."""
