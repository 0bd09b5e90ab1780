"""Valid but ugly events: what producers may send and tidy test data never holds. Seeded."""

import json
import random
from collections.abc import Callable
from typing import Any, Final

from schemas.events import Receipt, Receive, Send
from schemas.states import WORDS
from tests.entries import NOON_MS, LogEntry, event

KINDS: Final[dict[str, Any]] = {"sends": Send, "receives": Receive, "receipts": Receipt}
MILLENNIUM_MS: Final = 946_684_800_000
# Strings at the limit of 8 KiB, what quoting and terminals trip over, and what is no character to some.
TEXTS: Final = (
    '"', "\\", '\\"', "\x00", "a\x00b", "".join(map(chr, range(32))), "\x7f\x80\x9f", "\x1b[31mred\x1b]0;t\x07", "=1+A1",
    "\u202eabc\u202c", "\ufeff", "\u2028\u2029", "\ufffd\uffff", "\U0001f600\U0010ffff", "e\u0301", "'; DROP TABLE mdrs; --",
    "null", "0", " ", "\r\n", "\t", "{}", "]", "x" * 8_192, '"' * 8_192, "\u00e9" * 4_096, "\U0001f600" * 2_048, "\x00" * 99,
)  # fmt: skip
BODIES: Final = (*TEXTS, "x" * 39_015, "\u0436" * 17_085, "\\" * 16_000, "a" * 152 + "\u20ac", "\u20ac" * 19_380)
MONEY: Final = ("0", "0.0", "9999999.999999999", "9999999.999999999000000000", "0000001.5", "0.000000001", "7")
INSTANTS_MS: Final = (MILLENNIUM_MS, NOON_MS, NOON_MS - 1, NOON_MS - 86_400_000 * 365)
_REQUIRED: Final = {"event_id", "message_id", "occurred_at", "from_number", "to_number", "occurred_ms", "source"}
ID_CHARS: Final = " \"\\'=+-~\u00e9\u202e\U0001f600aZ09\u00a0\ufeff"


class Ugly:
    """Makes events of one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def text(self) -> str:
        """A string of any kind; seldom a long one."""
        found = self.dice.choice(TEXTS)
        return found if len(found) < 100 or self.dice.random() < 0.1 else found[:70]

    def id(self, prefix: str) -> str:
        """An id of 1 to 128 characters, none of them a control character."""
        size = self.dice.choice([0, 1, 5, 128 - len(prefix)])
        return prefix + "".join(self.dice.choice(ID_CHARS) for _ in range(size))

    def _list(self) -> list[str]:
        return [self.text()[:500] for _ in range(self.dice.choice([0, 1, 2, 64]))]

    def _field(self, name: str) -> Any:
        one: dict[str, Callable[[], Any]] = {
            "rate": lambda: self.dice.choice(MONEY), "carrier_fee": lambda: self.dice.choice(MONEY),
            "segments": lambda: self.dice.choice([1, 2, 254, 255]), "segment": lambda: self.dice.choice([1, 2, 255]),
            "body": lambda: self.dice.choice(BODIES), "media_urls": self._list, "group_to": self._list, "tags": self._list,
            "attributes": lambda: dict.fromkeys(self._list(), self.text()[:500]),
            "mcc": lambda: self.dice.choice(["000", "310", ""]), "mnc": lambda: self.dice.choice(["00", "004", ""]),
            "country": lambda: self.dice.choice(["ZZ", "US", None]), "currency": lambda: self.dice.choice(["XXX", "JPY"]),
            "message_type": lambda: self.dice.choice(["sms", "mms", "whatsapp"]),
            "number_type": lambda: self.dice.choice(["short-code", None, ""]),
            "encoding": lambda: self.dice.choice(["gsm7", "ucs2", None]),
        }  # fmt: skip
        return one.get(name, self.text)()

    def fields(self, topic: str, message_id: str, event_id: str) -> dict[str, Any]:
        """An event with some of its optional fields, in any order."""
        at_ms = self.dice.choice([*INSTANTS_MS, self.dice.randrange(MILLENNIUM_MS, NOON_MS)])
        made = event(topic, message_id, at_ms, event_id=event_id)
        if topic == "receipts":
            made["state"] = self.dice.choice([word.lower() for word in WORDS] + list(WORDS))
        else:
            made["account_id"] = self.text() or "a"
            made["from"] = self.dice.choice(["123", "+12345678901234", "A &;<>'\"", "+4791234567"])
        optional = [n for n in KINDS[topic].__struct_fields__ if n not in made and n not in _REQUIRED]
        chosen = self.dice.sample(optional, self.dice.choice([0, 3, 6, len(optional)]))
        made |= {name: self._field(name) for name in chosen} | {'nobody "reads"\\': [[None, -1e9, {"": "\x00"}]]}
        return dict(self.dice.sample(sorted(made.items(), key=lambda pair: pair[0]), len(made)))

    def entry(self, topic: str, offset: int, message_id: str, event_id: str) -> LogEntry:
        """The same as a log entry, with or without escapes."""
        fields = self.fields(topic, message_id, event_id)
        raw = json.dumps(fields, ensure_ascii=self.dice.random() < 0.3).encode()
        return LogEntry(offset, NOON_MS, message_id.encode(), raw)

