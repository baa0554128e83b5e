"""Inputs that are almost right for every command, and how each of them ends: see scripts/fuzz_inputs.py."""
