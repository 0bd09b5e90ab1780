"""The Faust app: one agent a topic on our transport, without Faust's own tables, web server, topics and acks."""

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import faust

from streams import kafka, private
from streams.settings import Settings
from streams.transport import Transport


def faust_app(settings: Settings, group: str, agents: Mapping[str, Callable[[Any], Awaitable[None]]]) -> faust.App:
    """An app that gives each topic's batches to its agent; `agents` by topic without prefix."""
    private.directory(settings.data_dir)
    app = faust.App(
        group,
        broker=[f"kafka://{server.strip()}" for server in settings.kafka.split(",")],
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        datadir=str(settings.data_dir / "faust"),
        # Never wait for acks that do not exist: a rebalance would hang on it.
        stream_wait_empty=False,
        stream_buffer_maxsize=4,
        broker_session_timeout=10.0,
        broker_request_timeout=40.0,
    )
    # It would be a connection more, in plain text: what we send goes through the outbox.
    app.boot_strategy.enable_kafka_producer = False
    app.transport = _transport(settings, group, app)
    for topic, agent in agents.items():
        source = app.topic(settings.topic_prefix + topic, value_type=bytes, value_serializer="raw", acks=False)
        app.agent(source, name=f"{settings.topic_prefix}{topic}")(agent)
    return app


def _transport(settings: Settings, group: str, app: faust.App) -> Transport:
    transport = Transport(app.conf.broker_consumer, app)
    # By this name tools that describe the group, and `mdr lag`, tell the workers apart.
    client_id = f"mdr-{socket.gethostname()}-{os.getpid()}"
    transport.consumer_options = {**kafka.client_options(settings), "client_id": client_id}
    transport.leaders = {f"{settings.topic_prefix}receipts": f"{settings.topic_prefix}sends"}
    if settings.is_embedded:
        # Only one process can have an embedded store open, so the member before us is gone: take its place at once.
        transport.consumer_options["group_instance_id"] = f"{group}.embedded"
    return transport
