"""Turns a recipe into a submission: one script that trains, quantizes and evaluates, and its papers."""
