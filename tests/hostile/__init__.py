"""Hostile input and pressure against `mdr up` as it runs: see `__main__`."""
