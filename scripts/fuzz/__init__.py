"""Inputs that are almost valid for every command, and checks of how it ends; see scripts/fuzz_inputs.py."""
