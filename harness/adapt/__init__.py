"""Test-time adaptation: recipes behind one protocol, fed by grants of already scored tokens."""
