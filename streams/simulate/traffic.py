"""Seeded traffic in the order producers would write it: the same plan gives the same bytes.

One pass, no clock, no IO. Each message puts its events on a heap at the moment they would be
produced, and everything before the next message leaves it, so memory holds only what is still to come.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop
from math import log
from random import Random

from orjson import dumps

from streams.simulate.bodies import ANSWERS
from streams.simulate.broken import breaks
from streams.simulate.outbox import Event, Fields, Outbox, Plan
from streams.simulate.stamps import milli
from streams.simulate.world import Network, Route, routes

SEND, RECEIVE, RECEIPT = "sends", "receives", "receipts"


def events(plan: Plan) -> Iterator[Event]:
    """The plan's events in production order."""
    return _Traffic(plan).run()


def _hex(rng: Random, digits: int) -> Iterator[str]:
    """Random hexadecimal ids, cut from larger draws."""
    while True:
        block = rng.randbytes(256 * digits).hex()
        for place in range(0, len(block), digits):
            yield block[place : place + digits]


def _uuids(rng: Random) -> Iterator[str]:
    for word in _hex(rng, 32):
        yield f"{word[:8]}-{word[8:12]}-4{word[13:16]}-a{word[17:20]}-{word[20:]}"


class _Traffic:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        rng = Random(plan.seed)
        self.random = rng.random
        self.bits = rng.getrandbits
        self.event_id = _hex(rng, 24).__next__
        self.message_id = _uuids(rng).__next__
        self.outbox = Outbox(plan, rng)
        self.push = self.outbox.push
        self.routes = routes(plan.settling_ms, plan.account)
        self.breaks = [(topic, breaks(topic)) for topic in (SEND, RECEIVE, RECEIPT)]
        self.broken = 0
        self.floods = plan.floods
        # Who may answer: customer, route and the id of what is answered, "" once an answer has borrowed it.
        self.recent: list[tuple[str, Route, str]] = []

    def run(self) -> Iterator[Event]:
        waiting, random = self.outbox.waiting, self.random
        gap_ms = 1000 / self.plan.rate_per_s
        at_ms = float(self.plan.start_ms)
        for _ in range(self.plan.messages):
            at_ms -= log(1 - random()) * gap_ms
            self.message(int(at_ms))
            while waiting and waiting[0][0] <= at_ms:
                yield heappop(waiting)[2]
        while waiting:
            yield heappop(waiting)[2]

    def message(self, at_ms: int) -> None:
        plan, random = self.plan, self.random
        if random() < plan.inbound_share:
            self.inbound(at_ms)
        else:
            self.outbound(at_ms)
        if random() < plan.orphan_share:
            self.receipts(self.message_id(), self.route(), at_ms, 1)
        if random() < plan.broken_share:
            self.break_one(at_ms)

    def route(self) -> Route:
        return self.routes[int(self.random() * 1000)]

    # ---- outbound ----

    def outbound(self, at_ms: int) -> None:
        random, route, message_id = self.random, self.route(), self.message_id()
        text = route.texts[int(random() * len(route.texts))]
        fields: Fields = {
            "event_id": self.event_id(),
            "message_id": message_id,
            "occurred_at": route.network.stamp(at_ms),
            "from": route.sender,
            "to": route.numbers[int(random() * len(route.numbers))],
            "body": text.body.replace("#", str(100_000 + int(random() * 900_000))),
            **route.fields,
        }
        if route.states_size and "message_type" not in fields:
            fields["encoding"], fields["segments"] = text.encoding, text.segments
        if random() < 0.12:
            self.extras(fields, route)
        if self.floods:
            self.floods -= 1
            first_ms = self.flood(message_id, at_ms)
        else:
            parts = 1 if "message_type" in fields else text.segments
            first_ms = self.receipts(message_id, route, at_ms, parts)
        if random() < self.plan.early_share:
            written_ms = first_ms + 1 + int(random() * 5000)
        else:
            written_ms = at_ms + 5 + int(random() * 60)
        self.push(SEND, message_id.encode(), fields, written_ms)
        if random() < self.plan.conflict_share:
            self.outbox.contradict(SEND, message_id.encode(), fields, written_ms)
        self.remember(str(fields["to"]), route, message_id)

    def extras(self, fields: Fields, route: Route) -> None:
        """What only some messages carry."""
        random, numbers = self.random, route.numbers
        fields["user_data"] = f"order-{self.bits(20)}"
        if "message_type" in fields:
            fields["conversation_id"] = f"{self.bits(64):016x}"
        elif route.media and random() < 0.5:
            fields["message_type"] = "mms"
            fields["media_urls"] = [f"https://media.example/{self.bits(64):016x}.jpg"]
            fields.pop("segments", None)
            if random() < 0.3:
                fields["group_to"] = [numbers[int(random() * len(numbers))], fields["to"]]
        elif random() < 0.2:
            fields["external_number"] = fields["to"]

    def remember(self, customer: str, route: Route, message_id: str) -> None:
        if route.sender[0].isalpha():  # nobody can answer a name
            return
        if len(self.recent) < 500:
            self.recent.append((customer, route, message_id))
        else:
            self.recent[int(self.random() * 500)] = (customer, route, message_id)

    # ---- receipts ----

    def receipts(self, message_id: str, route: Route, at_ms: int, segments: int) -> int:
        """The receipts of one message; returns when the first one is written."""
        random, network, plan = self.random, route.network, self.plan
        delay_ms = 100 + network.delays_ms[int(random() * 1000)] + int(random() * 400)
        final_ms = at_ms + delay_ms
        final_written_ms = final_ms + 20 + int(random() * 500)
        if random() < plan.late_share:
            final_written_ms += int(plan.settling_ms * (1 + random() / 2)) + 1000
        sent_ms = at_ms + 60 + int(random() * (delay_ms - 60))
        sent_written_ms = sent_ms + 20 + int(random() * 80)
        if random() < plan.reordered_share:
            sent_written_ms = final_written_ms + 1 + int(random() * 2000)
        first_ms = final_written_ms
        if random() < 0.8:
            self.receipt(message_id, network, "sent", sent_ms, sent_written_ms, self.hop())
            first_ms = min(first_ms, sent_written_ms)
            if random() < 0.02:
                self.receipt(message_id, network, "queued", at_ms + 30, sent_written_ms, {})
        if random() >= plan.missing_share:
            parts = segments if segments > 1 and network.by_part else 0
            self.final(message_id, route, final_ms, final_written_ms, parts)
        return first_ms

    def final(self, message_id: str, route: Route, at_ms: int, written_ms: int, parts: int) -> None:
        """The final receipt, or one for each part where the network confirms parts."""
        random, network = self.random, route.network
        if random() < 0.004:  # a hub's failure that the handset's receipt outranks
            self.failure(message_id, network, at_ms - 40, written_ms - 15, {})
            self.receipt(message_id, network, "delivered", at_ms, written_ms, {})
        told = self.told(route)
        if not parts:
            self.outcome(message_id, network, at_ms, written_ms, told)
            return
        shared = {"event_id": self.event_id()} if random() < 0.3 else {}
        for part in range(1, parts + 1):
            self.outcome(message_id, network, at_ms, written_ms, {**told, **shared, "segment": part})
            at_ms += int(random() * 300)
            written_ms = max(at_ms + 20, written_ms + int(random() * 600) - 200)
            told = {}

    def outcome(self, message_id: str, network: Network, at_ms: int, written_ms: int, told: Fields) -> None:
        if self.random() < network.delivered:
            self.receipt(message_id, network, "delivered", at_ms, written_ms, told)
        else:
            self.failure(message_id, network, at_ms, written_ms, told)

    def hop(self) -> Fields:
        """What an intermediate receipt tells, now and then: the network it passed, not yet the last one."""
        if self.random() < 0.03:
            other = self.route().network
            return {"mcc": other.mcc, "mnc": other.mnc, "provider": other.provider, "rate": other.rate}
        return {}

    def told(self, route: Route) -> Fields:
        """What the carrier tells that the send did not, or tells otherwise, as of a ported number."""
        if self.random() < 0.03:
            other = self.route().network
            return {**route.told, "mcc": other.mcc, "mnc": other.mnc, "rate": other.rate}
        return route.told.copy()

    def failure(self, message_id: str, network: Network, at_ms: int, written_ms: int, told: Fields) -> None:
        state, code, vendor_code = network.failures[int(self.random() * len(network.failures))]
        if code:
            told["error_code"] = code
        if vendor_code:
            told["vendor_error_code"] = vendor_code
        self.receipt(message_id, network, state, at_ms, written_ms, told)

    def receipt(self, message_id: str, network: Network, state: str, at_ms: int, written_ms: int, told: Fields) -> None:
        fields: Fields = {
            "event_id": self.event_id(),
            "message_id": message_id,
            "occurred_at": network.stamp(at_ms),
            "state": network.words[state],
            **told,
        }
        self.push(RECEIPT, message_id.encode(), fields, written_ms)

    def flood(self, message_id: str, at_ms: int) -> int:
        """Ten receipts more than are kept, in an order that nothing disturbs."""
        fields: Fields = {"message_id": message_id, "state": "sent"}
        for place in range(330):
            fields |= {"event_id": self.event_id(), "occurred_at": milli(at_ms + place)}
            broken = "too_many_events" if place >= 320 else ""
            self.outbox.write(RECEIPT, message_id.encode(), dumps(fields), at_ms + 100 + place, broken)
        return at_ms + 100

    # ---- inbound, broken ----

    def inbound(self, at_ms: int) -> None:
        random = self.random
        customer, route, message_id = self.conversation()
        fields: Fields = {
            "event_id": self.event_id(),
            "message_id": message_id,
            "occurred_at": route.network.stamp(at_ms),
            "from": customer,
            "to": route.sender,
            "body": ANSWERS[int(random() * len(ANSWERS))].replace("#", str(int(random() * 10_000))),
            **route.inbound,
        }
        if random() < 0.02:
            fields |= {"error_code": "40010", "vendor_error_code": "0x14"}
        written_ms = at_ms + 5 + int(random() * 200)
        self.push(RECEIVE, message_id.encode(), fields, written_ms)
        if random() < self.plan.conflict_share:
            self.outbox.contradict(RECEIVE, message_id.encode(), fields, written_ms)

    def conversation(self) -> tuple[str, Route, str]:
        """Who writes to whom: mostly an answer, now and then under the very id of what it answers."""
        random = self.random
        place = int(random() * 700)
        if place < len(self.recent):
            customer, route, message_id = self.recent[place]
            if message_id and random() < 0.005:
                self.recent[place] = (customer, route, "")
                return customer, route, message_id
            return customer, route, self.message_id()
        route = self.route()
        while route.sender[0].isalpha():
            route = self.route()
        return route.numbers[int(random() * len(route.numbers))], route, self.message_id()

    def break_one(self, at_ms: int) -> None:
        topic, kinds = self.breaks[self.broken % len(self.breaks)]
        self.broken += 1
        fields: Fields = {
            "event_id": self.event_id(),
            "message_id": f"bad-{self.bits(64):016x}",
            "occurred_at": milli(at_ms),
        }
        if topic == RECEIPT:
            fields["state"] = "delivered"
        else:
            route = self.route()
            fields |= {"account_id": route.fields["account_id"], "from": "72345", "body": "hello"}
            fields["to"] = route.numbers[int(self.random() * len(route.numbers))]
        key, value, reason = next(kinds)(fields)
        self.outbox.write(topic, key, value, at_ms + 5, reason)
