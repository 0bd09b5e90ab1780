"""Realistic message traffic from a seed, and the records it must end up as.

Pure, and apart from the code under test: nothing here imports the rest of the product, so that its
truth can be compared with what the product makes of the same events.
"""

from streams.simulate.outbox import Event, Plan
from streams.simulate.traffic import events
from streams.simulate.truth import Truth, expected, records_jsonl

__all__ = ["Event", "Plan", "Truth", "events", "expected", "records_jsonl"]
