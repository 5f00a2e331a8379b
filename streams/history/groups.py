"""What a consumer group says about itself: whether it lives, what it has committed, how far behind.

Only the audit asks; a group that does not exist has committed nothing and does not live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from routekeel.streams.log_bounds import ask_offsets

TIMEOUT_S: Final = 15.0
_LIVE: Final = (
    ConsumerGroupState.STABLE,
    ConsumerGroupState.PREPARING_REBALANCING,
    ConsumerGroupState.COMPLETING_REBALANCING,
)


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group's view of one topic, by partition."""

    live: bool = False
    committed: Mapping[int, int] = field(default_factory=dict)
    ends: Mapping[int, int] = field(default_factory=dict)

    def behind(self, partition: int) -> bool:
        """Whether the topic has records that the group has not committed."""
        return self.committed.get(partition, 0) < self.ends.get(partition, 0)


def group_state(admin: AdminClient, group: str, topic: str, partitions: int) -> GroupState:
    """The group's state; a broker that does not know the group gives an empty one."""
    asked = [TopicPartition(topic, partition) for partition in range(partitions)]
    if not asked:
        return GroupState()
    try:
        described = admin.describe_consumer_groups([group], request_timeout=TIMEOUT_S)
        live = described[group].result().state in _LIVE
        offsets = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group, asked)], request_timeout=TIMEOUT_S
        )
        committed = {
            tp.partition: tp.offset
            for tp in offsets[group].result().topic_partitions
            if tp.offset >= 0
        }
        ends = ask_offsets(admin, {tp: OffsetSpec.latest() for tp in asked})
        return GroupState(live, committed, {partition: end for (_, partition), end in ends.items()})
    except KafkaException:
        return GroupState()
