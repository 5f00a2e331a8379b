"""The topics: created with the right settings, described with their ids, for every command.

Kafka's topic id is part of every deduplication token: offsets of a recreated topic must never be taken
for those of the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from routekeel.streams.errors import ConfigurationError, ServiceUnavailable
from routekeel.streams.settings import Settings

TIMEOUT_S = 15.0
HOUR_MS = 3_600_000
COMPACTION_LAG_MS = HOUR_MS


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic as it should be."""

    name: str
    partitions: int
    config: dict[str, str]


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic as it is: Kafka's id and the number of partitions."""

    name: str
    topic_id: str
    partitions: int


@dataclass(frozen=True, slots=True)
class TopicOutcome:
    """What `ensure_topics` did with one topic: created, unchanged or reconfigured."""

    name: str
    action: str
    partitions: int


def changelog_topic(settings: Settings) -> str:
    """The name of the worker's state log."""
    return f"{settings.worker.app_id}-sessions-changelog"


def plan_topics(settings: Settings) -> list[TopicPlan]:
    """Every topic the system needs. Data topics and the changelog share one number of partitions.

    Every record's time is the broker's append time. Eviction compares event times with that of the
    logits, the store's partitions and TTL go by that of the outputs, retention and the lag of compaction
    by all. A clock that is wrong at a client could otherwise have a log deleted (behind) or its records
    refused (an hour ahead, where `message.timestamp.after.max.ms` is Kafka's own).
    """
    topics = settings.topics
    common = {
        "max.message.bytes": str(topics.record_bytes_max),
        "message.timestamp.type": "LogAppendTime",
    }
    compacted = {**common, "cleanup.policy": "compact"}

    def kept(hours: float) -> dict[str, str]:
        return {**common, "retention.ms": str(int(hours * HOUR_MS))}

    data, output = topics.partitions, kept(topics.output_retention_h)
    lag = {"min.compaction.lag.ms": str(COMPACTION_LAG_MS)}
    return [
        TopicPlan(topics.logits, data, kept(topics.logits_retention_h)),
        TopicPlan(topics.telemetry, data, output),
        TopicPlan(topics.weights, data, output),
        TopicPlan(changelog_topic(settings), data, {**compacted, **lag}),
        TopicPlan(topics.policy, 1, compacted),
        TopicPlan(topics.alerts, 1, output),
        TopicPlan(topics.dlq, data, kept(topics.dlq_retention_h)),
    ]


def admin_client(settings: Settings) -> AdminClient:
    """An admin client; it connects when it is used.

    Raises ConfigurationError for settings that no client can be made from (a CA file that is missing).
    """
    try:
        return AdminClient(settings.kafka.client_config() | {"log_level": 2})
    except KafkaException as error:
        raise ConfigurationError(
            f"the Kafka client cannot be made: {error.args[0].str()}",
            "check the section kafka of the settings; routekeel config shows where each came from",
        ) from error


def describe(
    settings: Settings, names: Sequence[str], admin: AdminClient | None = None
) -> dict[str, TopicInfo]:
    """The topics of these names that exist. Raises ServiceUnavailable when the broker does not answer."""
    admin = admin or admin_client(settings)
    found: dict[str, TopicInfo] = {}
    futures = admin.describe_topics(TopicCollection(list(names)), request_timeout=TIMEOUT_S)
    for name, future in futures.items():
        try:
            description = future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise unavailable(settings, error) from error
        found[name] = TopicInfo(name, str(description.topic_id), len(description.partitions))
    return found


def require(settings: Settings, names: Sequence[str]) -> dict[str, TopicInfo]:
    """Like describe, but a missing topic is an error that says what to do."""
    found = describe(settings, names)
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigurationError(
            f"topic {', '.join(missing)} does not exist", "routekeel topics creates what is missing"
        )
    return found


def ensure_topics(settings: Settings) -> list[TopicOutcome]:
    """Create what is missing and set what differs; never removes and never changes partition counts.

    Raises ConfigurationError when an existing data topic has another number of partitions.
    """
    admin = admin_client(settings)
    plans = plan_topics(settings)
    existing = describe(settings, [plan.name for plan in plans], admin)
    for plan in plans:
        have = existing.get(plan.name)
        if have is not None and have.partitions != plan.partitions:
            raise ConfigurationError(
                f"topic {plan.name} has {have.partitions} partitions, the settings say {plan.partitions}",
                f"set topics.partitions={have.partitions}, or use new topic names: a session's state, input "
                "and output must share a partition number",
            )
    missing = [plan for plan in plans if plan.name not in existing]
    _create(admin, settings, missing)
    changed = _reconfigure(admin, [plan for plan in plans if plan.name in existing])
    created = {plan.name for plan in missing}
    return [
        TopicOutcome(
            plan.name,
            "created"
            if plan.name in created
            else "reconfigured"
            if plan.name in changed
            else "unchanged",
            plan.partitions,
        )
        for plan in plans
    ]


def _create(admin: AdminClient, settings: Settings, plans: Sequence[TopicPlan]) -> None:
    if not plans:
        return
    replication = settings.topics.replication_factor
    new = [NewTopic(p.name, p.partitions, replication, config=p.config) for p in plans]
    for name, future in admin.create_topics(new, operation_timeout=TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ConfigurationError(
                    f"cannot create topic {name}: {error.args[0].str()}"
                ) from error


def _reconfigure(admin: AdminClient, plans: Sequence[TopicPlan]) -> set[str]:
    resources = {plan.name: ConfigResource(ResourceType.TOPIC, plan.name) for plan in plans}
    if not resources:
        return set()
    current = {
        r.name: f.result() for r, f in admin.describe_configs(list(resources.values())).items()
    }
    changed: set[str] = set()
    for plan in plans:
        have: dict[str, Any] = current[plan.name]
        differing = {key: value for key, value in plan.config.items() if have[key].value != value}
        if differing:
            resource = ConfigResource(
                ResourceType.TOPIC,
                plan.name,
                incremental_configs=[
                    ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                    for key, value in differing.items()
                ],
            )
            for future in admin.incremental_alter_configs([resource]).values():
                future.result()
            changed.add(plan.name)
    return changed


def unavailable(settings: Settings, error: KafkaException) -> ServiceUnavailable:
    """What to raise where the broker does not answer."""
    return ServiceUnavailable(
        f"Kafka at {settings.kafka.bootstrap_servers} does not answer: {error.args[0].str()}",
        "routekeel up starts a local one; routekeel config shows where the address comes from",
    )
