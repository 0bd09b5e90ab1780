"""Make events that the contract allows and that nobody would like to meet: ugly values in every field of every topic.

Most are valid; whether one is, tests/oracle.py decides, which reads the whole log. Nothing of the product is used.
"""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

NASTY: Final = (
    '"', "\\", '\\"', "'", "`", "\x00", "a\x00b", "\x01\x02\x03", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x7f\x80\x9f",
    "\u202egnirts\u202c", "\u2066x\u2069", "\ufeffbom", "\u2028\u2029", "\U0010ffff\ufffe\uffff", "e\u0301", "\u0130\u0131\u017f\u00df",
    "\U0001f3f3\ufe0f\u200d\U0001f308", "=1+A1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "null", "true", "NaN", "1e999", "-0",
    "{}", "[]", "{{7*7}}", "${jndi:x}", "%s%n%d", "%00", "%2F..%2F", "../../x", "a/b?c#d", " lead and trail ", "''; DROP TABLE mdrs; --",
    "</script><script>alert(1)</script>", "[bold]x[/bold]", "{column:String}", "\\N", "\\x41\\u0041", ",;\t|", '""""', "\r\n\r\nX: y",
)  # fmt: skip
TEXTS: Final = (
    "subaccount_id", "profile_id", "connection_id", "provider", "campaign_id", "campaign_status", "powerpack_id",
    "conversation_id", "conversation_origin", "callback_url", "requester_ip", "user_data", "external_number",
    "billing_number", "replaced_sender", "registration_type",
)  # fmt: skip
STATES: Final = (
    "queued", "sent", "delivered", "UNDELIV", "failed", "REJECTD", "Expired", "DELIVRD", "2", "5", "8", "AcceptD", "enroute",
)  # fmt: skip
SENDERS: Final = ("+14155550100", "12345", "Kestrel", "A", "^{}[~]|\\", "\u20acuro", "Z 1", "999")
RECIPIENTS: Final = ("+14155550100", "+442079460018", "+4791234567", "+999999999999999", "+1234567", "123", "12345678")
MONEY: Final = ("0", "0.000000001", "9999999.999999999", "0.004", "0000001.5", "1.500000000000000000", "7")


class Made(NamedTuple):
    """One event: the topic without its prefix, key and value."""

    topic: str
    key: bytes
    value: bytes


class Ugly:
    """A seeded source; `account` is what most of its messages belong to."""

    def __init__(self, seed: int, account: str) -> None:
        self.random = random.Random(seed)
        self.account = account
        self.number = 0

    def messages(self, count: int, now_ms: int) -> Iterator[Made]:
        """The events of some messages, each with its receipts, some of them before it."""
        for _ in range(count):
            yield from self.message(now_ms)

    def message(self, now_ms: int) -> list[Made]:
        """One message in either direction."""
        pick = self.random.random()
        mid = self._id()
        if pick < 0.25:
            return [self._made("receives", mid, self._message(mid, now_ms) | self._errors())]
        events = [self._made("sends", mid, self._message(mid, now_ms))]
        events += [self._made("receipts", mid, self._receipt(mid, now_ms)) for _ in range(self.random.choice((0, 1, 1, 2, 4)))]
        events += [event for event in events if self.random.random() < 0.05]
        if self.random.random() < 0.2:
            self.random.shuffle(events)
        return events

    def months(self, count: int, now_ms: int) -> list[Made]:
        """As many settled messages, each in a month of its own, so that one flush holds them all."""
        made = []
        for n in range(count):
            mid = self._id()
            at = datetime(2001 + n // 12, 1 + n % 12, 28, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            made.append(self._made("receives", mid, self._message(mid, now_ms) | {"occurred_at": at}))
        return made

    def sends(self, count: int, now_ms: int) -> list[Made]:
        """Plain sends that nobody confirms: they stay open for the window."""
        made = []
        for _ in range(count):
            self.number += 1
            mid = f"open-{self.number}"
            fields = self._common(mid, now_ms) | {"account_id": self.account, "from": "Kestrel", "to": "+4791234567"}
            made.append(self._made("sends", mid, fields | {"user_data": "x" * 64, "body": self._word()}))
        return made

    def _made(self, topic: str, mid: str, fields: dict[str, Any]) -> Made:
        return Made(topic, mid.encode(), self._written(fields))

    def _written(self, fields: dict[str, Any]) -> bytes:
        """The same object in one of the ways that JSON has."""
        style = self.random.random()
        if style < 0.1:
            fields = dict(self.random.sample(list(fields.items()), len(fields)))
        if style < 0.3:
            return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        if style < 0.4:
            return json.dumps(fields, indent=self.random.choice((1, "\t"))).encode()
        if style < 0.45:
            escaped = "".join(f"\\u{unit:04x}" for unit in _units(fields["event_id"]))
            rest = json.dumps({name: value for name, value in fields.items() if name != "event_id"})
            return f'{{"event_id":"{escaped}",{rest[1:]}'.encode()
        return json.dumps(fields).encode()

    def _message(self, mid: str, now_ms: int) -> dict[str, Any]:
        some = self._some
        fields: dict[str, Any] = self._common(mid, now_ms)
        fields["account_id"] = self.account if self.random.random() < 0.7 else self._text() or "a"
        fields |= {"from": self.random.choice(SENDERS), "to": self.random.choice(RECIPIENTS)}
        for name in TEXTS:
            some(fields, name, self._text)
        some(fields, "body", self._body)
        some(fields, "message_type", lambda: self.random.choice(("sms", "mms", "whatsapp")))
        some(fields, "media_urls", self._list)
        some(fields, "tags", self._list)
        some(fields, "group_to", self._list)
        some(fields, "attributes", lambda: {self._text(): self._text() for _ in range(self.random.choice((1, 2, 64)))})
        some(fields, "segments", lambda: self.random.choice((1, 2, 255)))
        some(fields, "encoding", lambda: self.random.choice(("gsm7", "ucs2")))
        some(fields, "number_type", lambda: self.random.choice(("long-code", "toll-free", "short-code", "alphanumeric")))
        some(fields, "country", lambda: self.random.choice(("US", "ZZ", "NO")))
        some(fields, "currency", lambda: self.random.choice(("EUR", "IDR", "XXX")))
        self._network(fields)
        if self.random.random() < 0.02:
            fields["unread"] = self.random.choice((
                [[[0.1]]] * 1000, "\\" * 20_000, list(range(20_000)), {str(n): n for n in range(3_000)}, "\u00e9\u20ac" * 9_000, -0.0,
                10**30, 1e-300,
            ))  # fmt: skip
        return fields

    def _receipt(self, mid: str, now_ms: int) -> dict[str, Any]:
        fields: dict[str, Any] = self._common(mid, now_ms) | self._errors() | {"state": self.random.choice(STATES)}
        self._network(fields)
        self._some(fields, "segment", lambda: self.random.choice((1, 2, 255)))
        return fields

    def _common(self, mid: str, now_ms: int) -> dict[str, Any]:
        return {"event_id": self._id(), "message_id": mid, "occurred_at": self._instant(now_ms)}

    def _network(self, fields: dict[str, Any]) -> None:
        self._some(fields, "mcc", lambda: self.random.choice(("000", "310", "999")))
        self._some(fields, "mnc", lambda: self.random.choice(("00", "000", "99", "410")))
        self._some(fields, "rate", lambda: self.random.choice(MONEY))
        self._some(fields, "carrier_fee", lambda: self.random.choice(MONEY))
        self._some(fields, "provider", self._text)

    def _errors(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        self._some(fields, "error_code", self._text)
        self._some(fields, "vendor_error_code", self._text)
        return fields

    def _some(self, fields: dict[str, Any], name: str, make: Callable[[], Any]) -> None:
        """Sets a field in two of five events, to nothing in one of fifty."""
        pick = self.random.random()
        if pick < 0.4:
            fields[name] = make()
        elif pick < 0.42:
            fields[name] = self.random.choice((None, ""))

    def _word(self) -> str:
        return self.random.choice(NASTY)

    def _text(self) -> str:
        """At most 8 KiB in UTF-8."""
        pick = self.random.random()
        if pick < 0.02:
            filler = self.random.choice(("x", '"', "\\", "\x01", "\u20ac", "\U0001f600", "\n"))
            return filler * (8_192 // len(filler.encode()))
        if pick < 0.3:
            return "".join(self._word() for _ in range(3))
        return self._word()

    def _body(self) -> str:
        """At most 64 KiB in UTF-8; most have at most 255 parts."""
        return self._text() * self.random.choice((1, 1, 1, 2, 6))

    def _list(self) -> list[str]:
        return [self._text() for _ in range(self.random.choice((1, 2, 64)))]

    def _id(self) -> str:
        """Up to 128 characters, ugly ones among them, and no control characters."""
        self.number += 1
        word = "".join(c for c in self._word() if c.isprintable() or c in "\u202e\u2028\ufeff")
        name = f"u{self.number}-{word}"
        return name.ljust(128, self.random.choice("x\u20ac\U0001f600"))[:128] if self.random.random() < 0.1 else name

    def _instant(self, now_ms: int) -> str:
        """Within the last minute, seldom years ago; written with any offset and precision."""
        back_ms = self.random.randrange(60_000) if self.random.random() < 0.97 else self.random.randrange(24 * 365 * 86_400_000)
        at = datetime.fromtimestamp(max(now_ms - back_ms, 946_684_800_000) / 1000, UTC)
        offset = timedelta(minutes=self.random.choice((0, 0, 330, -570, 840)))
        if not offset:
            return f"{at:%Y-%m-%dT%H:%M:%S}.{self.random.randrange(10 ** 9):09}Z"
        minutes = int(offset.total_seconds()) // 60
        return f"{at + offset:%Y-%m-%dT%H:%M:%S.%f}{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _units(text: str) -> Iterator[int]:
    data = text.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
