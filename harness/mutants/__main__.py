"""``python -m harness.mutants``: the table of cheats and look-alikes."""

import sys

from harness.mutants.table import main

sys.exit(main())
