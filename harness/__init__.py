"""The strict evaluator: owns the tokens, the accumulator and the clock. Importing it loads no torch."""
