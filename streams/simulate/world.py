"""The world simulated traffic moves in: countries, networks, accounts and the routes between them.

Codes of countries and networks look real; every number lies in a range that its regulator keeps for
fiction or that its numbering plan cannot assign, and every name is invented.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import exp
from random import Random
from statistics import NormalDist
from typing import NamedTuple

from streams.simulate.bodies import Text, texts
from streams.simulate.stamps import east, micro, milli, nano, second

_NANP = {
    "US": "201 202 206 212 213 214 215 216 303 305 310 312 313 323 347 404 407 408 412 415 424 469 503 512"
    " 602 612 615 617 619 626 646 678 702 704 713 718 720 773 786 801 813 817 818 832 857 901 904 917 919",
    "CA": "403 416 438 514 587 604 613 647 778 819 902 905",
}
_RANGES = {  # prefix, digits left to fill
    "GB": [("+447700900", 3), ("+442079460", 3)],
    "FR": [("+3363998", 4)],
    "DE": [("+493023125", 3), ("+498999998", 3)],
    "SE": [("+467017406", 2)],
    "IE": [("+35320910", 4)],
    "IN": [("+91000000", 4)],
    "BR": [("+550090000", 4)],
    "MX": [("+52000000", 4)],
    "JP": [("+81000000", 4)],
}
_LANGUAGES = {
    "US": "en", "CA": "en fr", "GB": "en", "FR": "fr", "DE": "de", "SE": "sv", "IE": "en", "IN": "en hi",
    "BR": "pt", "MX": "es", "JP": "ja",
}  # fmt: skip

# country, mcc, mnc, provider, rate, fee, delivered, median delay in ms, spread, spelling, part by part
_NETWORKS = """
US 310 260 northgate 0.004 0.003 .965 2100 1.1 ours -
US 311 480 northgate 0.004 0.0031 .958 3400 1.3 smpp -
US 310 410 solano 0.0039 0.003 .962 2600 1.2 title parts
CA 302 720 solano 0.0052 0.0085 .955 2900 1.2 ours -
CA 302 610 solano 0.0052 0.0079 .949 3100 1.3 digits -
GB 234 10 meridian 0.0345 - .944 1900 1.0 smpp parts
GB 234 30 meridian 0.0351 - .951 2200 1.1 ours -
FR 208 01 meridian 0.0612 - .938 3800 1.4 smpp parts
FR 208 15 harbour 0.0598 - .921 5200 1.6 upper -
DE 262 01 harbour 0.0731 - .957 1700 1.0 ours parts
DE 262 02 harbour 0.0729 - .949 2400 1.2 smpp -
SE 240 01 harbour 0.0488 - .969 1500 0.9 ours -
IE 272 01 meridian 0.0556 - .96 1800 1.0 ours -
IN 405 857 tamarind 0.00195 0.000312500 .874 9800 1.9 digits parts
IN 404 10 tamarind 0.00205 0.000312500 .891 7600 1.8 smpp -
BR 724 06 jacana 0.0231 - .902 6400 1.7 upper -
BR 724 02 jacana 0.0224 - .887 7900 1.8 lower parts
MX 334 020 jacana 0.0189 0.0005 .911 5600 1.6 ours -
JP 440 10 hibiki 0.0745 - .973 1400 0.9 ours parts
JP 440 20 hibiki 0.0739 - .966 1600 1.0 title -
"""
_FAILURES = {  # provider: state, error_code, vendor_error_code
    "northgate": "undelivered 30003 4405, failed 30007 4770, rejected 30034 4476, expired 30010 -",
    "solano": "undelivered 50 1, rejected 200 774, failed 60 9",
    "meridian": "undelivered 27 0x0B, expired - 0x08, failed 34 0x45",
    "harbour": "undelivered 013 6c, failed 000 255, expired 064 -",
    "tamarind": "rejected DLT-4102 112, failed DLT-4105 115, undelivered 1 -",
    "jacana": "undelivered 450 21, rejected 451 -, failed - 33, expired 460 -",
    "hibiki": "failed E11 11, undelivered E21 21",
}
_STATES = ("queued", "sent", "delivered", "expired", "undelivered", "failed", "rejected")
_SPELLINGS = {
    "smpp": "ACCEPTD ENROUTE DELIVRD EXPIRED UNDELIV UNKNOWN REJECTD",
    "lower": "scheduled enroute delivrd expired deleted skipped rejectd",
    "digits": "1 6 2 3 5 9 8",
    "ours": "queued sent delivered expired undelivered failed rejected",
    "upper": "QUEUED ACCEPTED DELIVERED EXPIRED UNDELIVERABLE FAILED REJECTED",
    "title": "Queued Sent Delivered Expired Undelivered Failed Rejected",
}

# account, countries, kinds of text, senders, subaccounts: the first sends the most
_ACCOUNTS = """
parcelbird US,US,US,CA,GB notice,notice,promo long-code,toll-free 3
northbank US,CA otp short-code,long-code 2
chaiwala IN,IN,IN,GB otp,notice,promo alphanumeric 4
mercatello MX,US,BR promo,notice long-code,short-code 0
rodalux DE,FR,DE notice,otp alphanumeric,long-code 2
pontevia BR otp,promo short-code,long-code 0
clinicly US,IE notice,chat toll-free,long-code 5
hoshimart JP otp,notice,promo long-code,short-code 0
velomondo FR,DE,GB promo,notice alphanumeric 1
fjordpay SE,DE,GB otp alphanumeric 0
tillwell GB,IE notice,promo alphanumeric,long-code 2
maplecare CA notice,chat long-code 0
ridegull US,MX,BR otp,notice long-code,toll-free 0
boxwood US chat,promo long-code 6
lumenschool US,CA,GB notice toll-free 0
kestrelid US,GB,FR,DE,SE,IE,IN,BR,MX,JP otp alphanumeric,short-code 0
tabletop FR,US notice,chat long-code 0
greenfork GB promo,notice alphanumeric 0
harborarts US promo short-code 0
quietwater IE,SE chat long-code 0
"""
_STAMPS = {"tamarind": east, "hibiki": micro, "meridian": second, "jacana": nano}


class Network(NamedTuple):
    """Where a message goes and what its receipts look like; `delays_ms` is sampled evenly."""

    country: str
    mcc: str
    mnc: str
    provider: str
    rate: str
    fee: str
    delivered: float
    delays_ms: tuple[int, ...]
    words: dict[str, str]
    by_part: bool
    failures: list[tuple[str, str, str]]
    stamp: Callable[[int], str]


class Route(NamedTuple):
    """One account's way into one network: `fields` go into every send, `inbound` into every reply.

    `told` is what only the final receipt tells, because the send does not.
    """

    network: Network
    texts: tuple[Text, ...]
    numbers: tuple[str, ...]
    fields: dict[str, object]
    inbound: dict[str, object]
    told: dict[str, object]
    sender: str
    states_size: bool
    media: bool


@cache
def numbers(country: str) -> tuple[str, ...]:
    """Up to some thousand fictitious E.164 numbers of a country."""
    if country in _NANP:
        return tuple(f"+1{area}55501{line:02d}" for area in _NANP[country].split() for line in range(100))
    lines = [(prefix, width, range(5, min(10**width, 1000))) for prefix, width in _RANGES[country]]
    return tuple(f"{prefix}{line:0{width}d}" for prefix, width, some in lines for line in some)


def networks(settling_ms: int) -> list[Network]:
    """Every network, with its delays kept well inside the settling window."""
    return [_network(line.split(), settling_ms) for line in _NETWORKS.strip().splitlines()]


def _network(cells: list[str], settling_ms: int) -> Network:
    country, mcc, mnc, provider, rate, fee, delivered, median_ms, spread, spelling, parts = cells
    delays_ms = _delays_ms(int(median_ms), float(spread), settling_ms)
    words = dict(zip(_STATES, _SPELLINGS[spelling].split(), strict=True))
    return Network(
        country, mcc, mnc, provider, rate, fee.strip("-"), float(delivered), delays_ms, words,
        parts == "parts", _failures(provider), _STAMPS.get(provider, milli),
    )  # fmt: skip


def _delays_ms(median_ms: int, spread: float, settling_ms: int) -> tuple[int, ...]:
    """Quantiles of a log-normal delay, scaled down where the window is short."""
    normal, size = NormalDist(), 1000
    delays = [median_ms * exp(spread * normal.inv_cdf((step + 0.5) / size)) for step in range(size)]
    scale = min(1.0, 0.8 * settling_ms / delays[-1])
    return tuple(int(delay * scale) for delay in delays)


def _failures(provider: str) -> list[tuple[str, str, str]]:
    rows = [row.split() for row in _FAILURES[provider].split(",")]
    return [(state, code.strip("-"), vendor_code.strip("-")) for state, code, vendor_code in rows]


def routes(settling_ms: int, account: str | None) -> list[Route]:
    """1,000 routes to pick from evenly, few of them different; `account` takes the place of all accounts."""
    rng = Random("world")
    by_country: dict[str, list[Network]] = {}
    for network in networks(settling_ms):
        by_country.setdefault(network.country, []).append(network)
    known, weights = [], []
    for place, line in enumerate(_ACCOUNTS.strip().splitlines()):
        cells = line.split()
        for _ in range(8):
            network = rng.choice(by_country[rng.choice(cells[1].split(","))])
            known.append(_route(rng, account or cells[0], cells, network))
            weights.append(1 / (place + 1))
    return rng.choices(known, weights, k=1000)


def _route(rng: Random, account: str, cells: list[str], network: Network) -> Route:
    _, _, kinds, senders, subaccounts = cells
    country = network.country
    language = rng.choice(_LANGUAGES[country].split())
    kind = rng.choice(kinds.split(","))
    number_type = rng.choice(senders.split(","))
    sender = _sender(rng, cells[0], number_type, country)
    common: dict[str, object] = {"account_id": account}
    if int(subaccounts) and rng.random() < 0.7:
        common["subaccount_id"] = f"{account}-{rng.randint(1, int(subaccounts)):02d}"
    common["profile_id"] = _uuid(Random(f"{cells[0]} {kind}"))
    common["connection_id"] = str(Random(f"{cells[0]} {number_type}").randrange(10**18, 2 * 10**18))
    fields = common | _sending(rng, network, number_type, kind)
    network_is = {"mcc": network.mcc, "mnc": network.mnc, "provider": network.provider}
    price_is = {"rate": network.rate} | ({"carrier_fee": network.fee} if network.fee else {})
    told: dict[str, object] = {}
    for facts in (network_is, price_is):
        (fields if rng.random() < 0.85 else told).update(facts)
    media = number_type == "long-code" and country in ("US", "CA")
    inbound = common | {"provider": network.provider, "rate": "0.0025", "number_type": number_type}
    states_size = rng.random() < 0.4
    to = numbers(country)
    return Route(network, texts(kind, language), to, fields, inbound, told, sender, states_size, media)


def _sending(rng: Random, network: Network, number_type: str, kind: str) -> dict[str, object]:
    """What the route itself says of every message, as the field's vendors know it."""
    fields: dict[str, object] = {"number_type": number_type, "tags": [kind, network.provider]}
    # Fictitious British mobiles have no region to derive.
    if rng.random() < (0.9 if network.country == "GB" else 0.3):
        fields["country"] = network.country
    if network.country == "US" and number_type == "long-code":
        fields |= {"campaign_id": f"C{rng.randrange(36**6):06X}"[:7], "campaign_status": "registered"}
        fields["registration_type"] = "10dlc"
    if number_type == "long-code" and rng.random() < 0.4:
        fields["powerpack_id"] = _uuid(rng)
    if network.country == "IN":
        fields["attributes"] = {
            "dlt_entity_id": f"1201{rng.randrange(10**15):015d}",
            "dlt_template_id": f"1107{rng.randrange(10**15):015d}",
            "dlt_template_category": "transactional" if kind == "otp" else "promotional",
        }
    if network.country in ("BR", "MX") and kind != "otp" and rng.random() < 0.5:
        fields |= {
            "message_type": "whatsapp",
            "conversation_origin": "marketing" if kind == "promo" else "utility",
        }
    if rng.random() < 0.3:
        fields["callback_url"] = f"https://hooks.example/{kind}?route={network.mcc}-{network.mnc}"
    if rng.random() < 0.3:
        fields["requester_ip"] = f"{rng.choice(['192.0.2', '198.51.100', '203.0.113'])}.{rng.randint(1, 254)}"
    if rng.random() < 0.1:
        fields |= {"replaced_sender": "InfoSMS", "billing_number": "+18005550199"}
    if network.country in ("DE", "FR", "IE"):
        fields["currency"] = "EUR"
    return fields


def _sender(rng: Random, name: str, number_type: str, country: str) -> str:
    if number_type == "alphanumeric":
        return name.title()[:11]
    if number_type == "short-code":
        return str(Random(f"{name} {country}").randrange(20_000, 99_999))
    if number_type == "toll-free":
        return f"+1{rng.choice(['800', '833', '844', '855', '866', '877', '888'])}5550199"
    return Random(f"{name} {country} {rng.randint(1, 5)}").choice(numbers(country))


def _uuid(rng: Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
