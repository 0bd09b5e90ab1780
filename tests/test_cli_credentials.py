"""`mdr credentials` as a newcomer uses it: without anything running, beside a running API, and beside two."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas.times import parse_rfc3339
from streams.clock import clock_ms
from tests.servers import serve

ROOT = Path(__file__).parent.parent
MDR = [sys.executable, "-c", "from streams.cli import main; main()"]


def environ(home: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MDR_")}
    return inherited | {"MDR_DATA_DIR": str(home), "PYTHONPATH": str(ROOT)} | more


def mdr(home: Path, *arguments: str, code: int = 0, store: str = "") -> subprocess.CompletedProcess[str]:
    more = {"MDR_CLICKHOUSE_URL": store} if store else {}
    done = subprocess.run(
        [*MDR, *arguments], env=environ(home, **more), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def api(home: Path, store: str = "", **settings: str) -> Iterator[str]:
    """`mdr api` on a free port; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    more = settings | {"MDR_HTTP": f"127.0.0.1:{port}"} | ({"MDR_CLICKHOUSE_URL": store} if store else {})
    process = subprocess.Popen([*MDR, "api"], env=environ(home, **more))
    try:
        end = time.monotonic() + 60
        while status(url, "/livez") != 200 or not (home / "operator.json").exists():
            assert process.poll() is None and time.monotonic() < end, "mdr api did not start"
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def status(url: str, path: str, **headers: str) -> int:
    """The status of a GET; 0 when nobody answers."""
    asked = urllib.request.Request(url + path, headers={name.replace("_", "-"): v for name, v in headers.items()})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code
    except OSError:
        return 0


def basic(made: dict[str, Any]) -> str:
    return "Basic " + base64.b64encode(f"{made['key']}:{made['secret']}".encode()).decode()


def test_keys_without_anything_running(tmp_path: Path) -> None:
    """A key is made, listed without its secret, revoked once and never made again; people see what `--json` holds."""
    made = lines(mdr(tmp_path, "credentials", "add", "acme", "--json"))[0]
    assert made["bearer"] == f"{made['key']}.{made['secret']}"
    below = mdr(tmp_path, "credentials", "add", "sub", "--parent", "acme", "--key", "k1", "--scope", "sms.manage")
    assert [line.split()[0] for line in below.stdout.splitlines()] == ["account", "key", "secret", "bearer"]
    assert "only time" in below.stderr
    listed = mdr(tmp_path, "credentials", "list", "--json")
    assert [(r["account_id"], r["parent_id"], r["scopes"], r["revoked"]) for r in lines(listed)] == [
        ("acme", "", ["sms.read"], False),
        ("sub", "acme", ["sms.manage"], False),
    ]
    assert made["secret"] not in listed.stdout + mdr(tmp_path, "credentials", "list").stdout
    assert lines(mdr(tmp_path, "credentials", "revoke", "k1", "--json")) == [{"key": "k1", "revoked": True}]
    ended = lines(mdr(tmp_path, "credentials", "list", "--json"))[1]
    assert ended["revoked"] and ended["created_at"] == lines(listed)[1]["created_at"]
    assert "no live key k1" in mdr(tmp_path, "credentials", "revoke", "k1", code=1).stderr
    assert "k1 is taken" in mdr(tmp_path, "credentials", "add", "acme", "--key", "k1", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["acme", "--key", "a b"], "a key is 1 to 64 letters"),
        (["a\tb"], "the account is not 1 to 128 characters"),
        (["acme", "--parent", "acme"], "acme cannot be the parent of acme"),
    ],
)
def test_what_cannot_be_made_is_said(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    """A key or account that cannot be is one sentence and exit code 1."""
    assert sentence in mdr(tmp_path, "credentials", "add", *arguments, code=1).stderr


def test_keys_beside_a_running_api(tmp_path: Path) -> None:
    """While a process holds the embedded store, it makes, lists and ends keys for the command, which work at once."""
    with api(tmp_path) as url:
        made = lines(mdr(tmp_path, "credentials", "add", "acme", "--json"))[0]
        forms: tuple[dict[str, str], ...] = (
            {"Authorization": f"Bearer {made['bearer']}"}, {"Authorization": basic(made)},
            {"x_api_user": made["key"], "x_api_token": made["secret"]},
        )  # fmt: skip
        assert [status(url, "/mdr/records", **form) for form in forms] == [200] * 3
        assert [r["key"] for r in lines(mdr(tmp_path, "credentials", "list", "--json"))] == [made["key"]]
        assert "a key is 1 to 64" in mdr(tmp_path, "credentials", "add", "a", "--key", "ö", code=1).stderr
        mdr(tmp_path, "credentials", "revoke", made["key"])
        assert [status(url, "/mdr/records", **form) for form in forms] == [401] * 3
        assert "no live key" in mdr(tmp_path, "credentials", "revoke", made["key"], code=1).stderr
        assert "no live key a/b" in mdr(tmp_path, "credentials", "revoke", "a/b", code=1).stderr


def test_the_trace_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    """When nobody answers where a killed `mdr` once did, the store is opened instead."""
    told = {"url": "http://127.0.0.1:1", "key": "operator", "secret": "s"}
    (tmp_path / "operator.json").write_text(json.dumps(told))
    mdr(tmp_path, "credentials", "add", "acme")
    assert len(lines(mdr(tmp_path, "credentials", "list", "--json"))) == 1


def test_a_revoked_key_is_refused_by_every_process(tmp_path: Path) -> None:
    """Two API processes upon one server: what is revoked through one, the other refuses from the next request on."""
    with serve(tmp_path) as server, api(tmp_path / "a", server.url) as one, api(tmp_path / "b", server.url) as two:
        made = lines(mdr(tmp_path / "a", "credentials", "add", "acme", "--json", store=server.url))[0]
        header = {"Authorization": basic(made)}
        assert [status(url, "/mdr/records", **header) for url in (one, two)] == [200, 200]
        mdr(tmp_path / "b", "credentials", "revoke", made["key"], store=server.url)
        assert [status(url, "/mdr/records", **header) for url in (one, two)] == [401, 401]


def test_a_key_ends_by_itself(tmp_path: Path) -> None:
    """A key made to end is listed with its end and refused from then on; others never end; what is no time to come is refused."""
    for expires, sentence in (("2001-01-01", "to come"), ("tomorrow", "to come"), ("999999999d", "to come"), ("-1d", "to come")):
        assert sentence in mdr(tmp_path, "credentials", "add", "acme", "--expires", expires, code=1).stderr
    with api(tmp_path) as url:
        add = ("credentials", "add", "acme", "--json", "--expires")
        made = {key: lines(mdr(tmp_path, *add, at, "--key", key))[0] for key, at in (("later", "90d"), ("soon", "15s"))}
        made["never"] = lines(mdr(tmp_path, "credentials", "add", "acme", "--json", "--key", "never"))[0]
        soon = made["soon"]["expires_at"]
        assert made["never"]["expires_at"] is None
        days = ((parse_rfc3339(made["later"]["expires_at"]) or 0) - clock_ms()) / 86_400_000
        assert 89.9 < days <= 90
        end = time.monotonic() + 60
        while status(url, "/mdr/records", Authorization=basic(made["soon"])) != 401:
            assert time.monotonic() < end, "the key does not end"
            time.sleep(0.2)
        assert clock_ms() >= (parse_rfc3339(soon) or 0)
        assert [status(url, "/mdr/records", Authorization=basic(made[key])) for key in ("later", "never")] == [200, 200]
        listed = {line["key"]: line["expires_at"] for line in lines(mdr(tmp_path, "credentials", "list", "--json"))}
        assert listed == {key: one["expires_at"] for key, one in made.items()}
    table = mdr(tmp_path, "credentials", "list").stdout
    assert "expires" in table and "never" in table and soon in table


def test_a_real_process_heeds_named_proxies_only(tmp_path: Path) -> None:
    """What a client writes into forwarding headers changes nothing, until its address is named as a proxy's."""
    for proxies, prefix in (("", "mdr_session_"), ("127.0.0.0/8", "__Host-mdr_session_")):
        with api(tmp_path, MDR_TRUSTED_PROXIES=proxies) as url:
            told = json.loads((tmp_path / "operator.json").read_text())
            form = f"key=operator&secret={told['secret']}".encode()
            origin = url if not proxies else "https://mdr.example"
            headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "mdr.example", "Origin": origin}
            cookie = _sign_in(url, form, headers)
            assert cookie.startswith(prefix) and ("; Secure" in cookie) is bool(proxies)


def _sign_in(url: str, form: bytes, headers: dict[str, str]) -> str:
    """The cookie that a sign-in is answered with."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/ui/sign-in", form, headers | {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    connection.close()
    assert answer.status == 303, answer.status
    return answer.headers["Set-Cookie"]
