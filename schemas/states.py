"""States of a message, their rank, and the SMPP words that mean them.

The rank decides which of several receipts wins: the strongest state, whatever order the receipts came in.
`ACCEPTED` is not final: SMPP 3.4 section 5.2.28 lists it among the states a message may still leave.
"""

from typing import Final

QUEUED: Final = "queued"
SENT: Final = "sent"
DELIVERED: Final = "delivered"
RECEIVED: Final = "received"
FAILED: Final = "failed"
FAILURES: Final = frozenset({"expired", "undelivered", FAILED, "rejected"})

FINAL_RANK: Final = 2
RANK: Final[dict[str, int]] = {QUEUED: 0, SENT: 1, **dict.fromkeys(sorted(FAILURES), FINAL_RANK), DELIVERED: 3}

# SMPP 3.4, sections 5.2.28 (message_state as a number) and appendix B (the seven-letter `stat:` words).
_SMPP: Final[dict[str, str]] = {
    "SCHEDULED": SENT, "0": SENT, "ENROUTE": SENT, "1": SENT, "ACCEPTD": SENT, "ACCEPTED": SENT, "6": SENT,
    "DELIVRD": DELIVERED, "2": DELIVERED,
    "3": "expired",
    "DELETED": "undelivered", "4": "undelivered", "UNDELIV": "undelivered", "UNDELIVERABLE": "undelivered",
    "5": "undelivered",
    "UNKNOWN": FAILED, "7": FAILED, "SKIPPED": FAILED, "9": FAILED,
    "REJECTD": "rejected", "8": "rejected",
}  # fmt: skip

WORDS: Final[dict[str, str]] = {state.upper(): state for state in RANK} | _SMPP


def parse_state(word: str) -> str | None:
    """The state a producer's word means, in any case; None when it is no such word."""
    # ASCII only: str.upper() would turn 'ſent' (long s) into 'SENT'.
    return WORDS.get(word.upper()) if word.isascii() else None
