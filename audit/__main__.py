import sys

from audit.program import main

sys.exit(main(prog="python -m audit", prefix="audit"))
