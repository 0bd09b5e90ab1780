"""Fuzzing: the compiled part against the Python that defines it, on inputs that coverage leads to."""
