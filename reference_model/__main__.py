import sys

from audit.program import main

sys.exit(main(prog="python -m reference_model", prefix="reference_model"))
