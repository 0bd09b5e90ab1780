"""Real processes and real faults: a Kafka broker, `mdr` workers, a ClickHouse to take away, and the oracle's verdict.

`python -m tests.faults --seconds N` prints a table and, as its last line, one JSON object.
"""
