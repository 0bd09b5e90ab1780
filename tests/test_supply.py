"""What the application is made of is known by its hash, and runs with as few rights as it needs (Dockerfile, compose)."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

ROOT: Final = Path(__file__).parent.parent
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
LOCKS: Final = sorted(ROOT.glob("requirements*.lock"))
DIGEST: Final = re.compile(r"[a-z0-9./-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}")
audit: Final = runpy.run_path(str(ROOT / ".ci" / "audit.py"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_is_pinned_by_hash(lock: Path) -> None:
    """Each line of a lock is one version with its hashes."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", lock.read_text(), flags=re.MULTILINE).strip())
    assert entries and all(re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", entry) for entry in entries)
    assert not [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry]


def test_the_build_has_a_lock_of_its_own() -> None:
    """What builds the wheel is pinned as `pyproject.toml` and the build hook name it, in the version that tests run."""
    built = dict(re.findall(r"^([a-z-]+)==(\S+)", (ROOT / "requirements-build.lock").read_text(), re.MULTILINE))
    tested = dict(re.findall(r"^([a-z-]+)==(\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert wanted == [f"hatchling=={built['hatchling']}"]
    assert f'"ziglang=={built["ziglang"]}"' in (ROOT / "hatch_build.py").read_text()
    assert {name: version for name, version in built.items() if name in tested} == {
        name: tested[name] for name in built if name in tested
    }


def test_the_image_is_made_of_nothing_unknown() -> None:
    """Bases are digests; what pip installs has hashes and is a wheel, or comes from the build and no index."""
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases and all(DIGEST.fullmatch(base) for base in bases)
    for command in re.findall(r"pip install[^&\n]*", DOCKERFILE):
        assert "--no-index" in command or {"--require-hashes", "--only-binary"} <= set(command.split()), command
    assert "USER mdr" in DOCKERFILE and not re.search(r"\b(curl|wget|apt-get|ADD)\b", DOCKERFILE)


def test_services_have_few_rights() -> None:
    """Images are digests; every service gives up capabilities and new privileges, ours a writable file system too."""
    for name, service in COMPOSE["services"].items():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert "image" not in service or DIGEST.fullmatch(service["image"]), name
        assert not service.get("privileged") and "network_mode" not in service
    for name in ("worker", "api"):
        assert COMPOSE["services"][name]["read_only"] is True and "/tmp" in COMPOSE["services"][name]["tmpfs"]
    assert COMPOSE["services"]["api"]["volumes"] == ["api:/data"] and "api" in COMPOSE["volumes"]
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:8080:8080"]


def told(**packages: Any) -> str:
    """What pip-audit tells, by package: its findings, or why it was not looked up."""
    lines = [{"name": name, "version": "1"} | ({"skip_reason": v} if isinstance(v, str) else {"vulns": v}) for name, v in packages.items()]
    return json.dumps({"dependencies": lines})


def test_a_finding_fails_and_a_feed_out_of_reach_is_said() -> None:
    """A known vulnerability fails; nothing looked up passes in words; what went wrong otherwise fails."""
    verdict = audit["verdict"]
    bad = [{"id": "PYSEC-1", "fix_versions": ["2"]}]
    assert verdict(told(a=[], b=[]), "") == (True, ["2 of 2 packages looked up"])
    assert verdict(told(a=bad, b=[]), "") == (False, ["2 of 2 packages looked up", "a 1: PYSEC-1, mended in 2"])
    assert verdict(told(a=[], b="not found"), "") == (True, ["1 of 2 packages looked up", "the feed does not know b"])
    assert verdict(told(a=bad, b="not found"), "").passes is False
    for out, errors in ((told(a="x", b="x"), ""), ("", "requests.exceptions.ConnectionError: Max retries exceeded")):
        assert verdict(out, errors).passes and "cannot be reached" in verdict(out, errors).words[0]
    assert verdict("", "ERROR: invalid requirements input") == (False, ["pip-audit failed: ERROR: invalid requirements input"])
    assert verdict("", "").passes is False


def test_every_test_that_is_named_exists() -> None:
    """What the page about security says to be tested is: every test it names is there."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "SECURITY.md").read_text()))
    found = {name for path in (ROOT / "tests").glob("test_*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())}
    assert len(named) > 50 and not named - found
