"""One typed settings tree for every command: `load_settings()` reads it, `Settings` is its shape."""

from routekeel.streams.settings.load import LoadedSettings, load_settings
from routekeel.streams.settings.tree import (
    ClickHouseSettings,
    ControlSettings,
    KafkaSettings,
    RegistrySettings,
    Settings,
    SinkSettings,
    StackSettings,
    TopicSettings,
    WorkerSettings,
)

__all__ = [
    "ClickHouseSettings",
    "ControlSettings",
    "KafkaSettings",
    "LoadedSettings",
    "RegistrySettings",
    "Settings",
    "SinkSettings",
    "StackSettings",
    "TopicSettings",
    "WorkerSettings",
    "load_settings",
]
