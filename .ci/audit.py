"""Asks a feed whether a version that is pinned has known vulnerabilities, lock by lock.

A finding fails. A feed that cannot be reached is said, and passes: a build must not depend on somebody else's server.
"""

import json
import subprocess
import sys
from typing import NamedTuple

LOCKS = ("requirements.lock", "requirements-build.lock", "requirements-dev.lock")
_SECONDS_MAX = 300
_AWAY = ("ConnectionError", "Max retries exceeded", "getaddrinfo", "timed out", "Could not connect", "refused")


class Verdict(NamedTuple):
    """Whether a lock may pass, and what is to be said of it."""

    passes: bool
    words: list[str]


def verdict(told: str, errors: str) -> Verdict:
    """Return what pip-audit's JSON, or what it complained of instead, comes to."""
    try:
        found = json.loads(told)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if any(sign in errors for sign in _AWAY):
            return Verdict(True, ["the feed cannot be reached: nothing was looked up"])
        return Verdict(False, [f"pip-audit failed: {(errors.strip().splitlines() or ['it said nothing'])[-1]}"])
    bad = [
        f"{one['name']} {one['version']}: {each['id']}, mended in {', '.join(each['fix_versions']) or 'no version yet'}"
        for one in found
        for each in one.get("vulns", ())
    ]
    unknown = [one["name"] for one in found if "skip_reason" in one]
    if not bad and len(unknown) == len(found):
        return Verdict(True, ["the feed cannot be reached: it knows none of the packages"])
    words = [f"{len(found) - len(unknown)} of {len(found)} packages looked up"]
    return Verdict(not bad, words + bad + [f"the feed does not know {name}" for name in unknown])


def main() -> int:
    """Look all locks up."""
    code = 0
    for lock in LOCKS:
        asked = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "-r", lock, "-f", "json",
                 "--progress-spinner", "off", "--timeout", "15"]  # fmt: skip
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
        passes, words = verdict(done.stdout, done.stderr)
        sys.stdout.write("".join(f"{lock}: {line}\n" for line in words))
        code |= not passes
    return code


if __name__ == "__main__":
    sys.exit(main())
