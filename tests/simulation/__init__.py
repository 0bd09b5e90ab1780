"""The worker, all but Faust and the two servers, under a seeded scheduler. `python -m tests.simulation SEED` replays.

Real: decoding, joining, settling, the barrier, and the worker's own handling of batches, time, assignments and stops.
Fake, as they are the environment: the clock, the event loop's choice of who runs, Kafka's log and group, ClickHouse.
"""
