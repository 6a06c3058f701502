"""The rulebook. One rule, one module; modules are discovered, never listed."""
