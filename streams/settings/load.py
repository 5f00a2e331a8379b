"""Loads the settings and remembers where every value came from.

Later sources win: defaults, the running local stack, a YAML file, ROUTEKEEL_* variables, flags.
An unknown key is refused with the nearest known name, because a misspelt setting that is silently
ignored is worse than a program that does not start.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from routekeel.streams.errors import ConfigurationError
from routekeel.streams.settings.tree import Settings

PREFIX = "ROUTEKEEL_"
DELIMITER = "__"
CONFIG_VARIABLE = "ROUTEKEEL_CONFIG"
HIDDEN = "********"

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force and, per dotted name, the source that set it ('default' otherwise)."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """(dotted name, value, origin) of every setting, secrets hidden."""
        return [
            (
                name,
                HIDDEN if isinstance(value, SecretStr) else str(value),
                self.origins.get(name, "default"),
            )
            for name, value in _leaves(self.settings)
        ]


def load_settings(
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Read every source and validate the tree.

    `config` is a YAML file (else the file that ROUTEKEEL_CONFIG names), `flags` maps dotted names to
    values. Raises ConfigurationError that names the source, the key and the nearest known name.
    """
    environ = os.environ if environ is None else environ
    config = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    layers: list[Tree] = []
    origins: dict[str, str] = {}
    if config is not None:
        tree = _read_yaml(config)
        _refuse_unknown(tree, Settings, f"file {config}", ())
        layers.append(tree)
        origins |= dict.fromkeys(_paths(tree, Settings, ()), f"file {config}")
    tree, variables = _variable_layer(environ)
    layers.append(tree)
    origins |= variables
    for name, value in (flags or {}).items():
        if value is not None:
            layers.append(_nest(name.split("."), value))
            origins[name] = "flag"
    merged: Tree = {}
    for layer in layers:
        merged = _merge(merged, layer)
    stack = _local_stack_layer(Path(merged.get("stack", {}).get("state_dir", ".routekeel")))
    merged = _merge(stack, merged)
    origins = dict.fromkeys(_paths(stack, Settings, ()), "local stack") | origins
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise _invalid(error, origins) from error
    return LoadedSettings(settings, origins)


def _invalid(error: ValidationError, origins: Mapping[str, str]) -> ConfigurationError:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    return ConfigurationError(
        f"setting {name}: {first['msg']} (got {first.get('input')!r}, from {origins.get(name, 'default')})",
        "`routekeel config` prints every setting in force",
    )


def _read_yaml(path: Path) -> Tree:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the configuration file {path}: {error.strerror}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path} must hold a mapping of sections, not a {type(content).__name__}"
        )
    return content


def _variable_layer(environ: Mapping[str, str]) -> tuple[Tree, dict[str, str]]:
    """The tree that the ROUTEKEEL_<SECTION>__<NAME> variables give, and which variable set what."""
    origins: dict[str, str] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        path = variable.removeprefix(PREFIX).lower().split(DELIMITER)
        _refuse_unknown(
            _nest(path, {} if len(path) == 1 else None), Settings, f"variable {variable}", ()
        )
        origins[".".join(path)] = f"variable {variable}"
    source = EnvSettingsSource(Settings, env_prefix=PREFIX, env_nested_delimiter=DELIMITER)
    source.env_vars = {name.lower(): text for name, text in environ.items()}
    try:
        return source(), origins
    except SettingsError as error:
        raise ConfigurationError(f"a {PREFIX}* variable cannot be read: {error}") from error


def _local_stack_layer(state_dir: Path) -> Tree:
    """Endpoints of the local stack in `state_dir`, where one is recorded."""
    from routekeel.infra.local.contract import StackConfig
    from routekeel.infra.local.stack import LocalStack

    endpoints = LocalStack(StackConfig(state_dir=state_dir)).endpoints()
    if endpoints is None:
        return {}
    return {
        "kafka": {"bootstrap_servers": endpoints.kafka_bootstrap},
        "registry": {"url": endpoints.registry_url},
        "clickhouse": {
            "host": endpoints.clickhouse_host,
            "port": endpoints.clickhouse_port,
            "username": endpoints.clickhouse_username,
            "password": endpoints.clickhouse_password,
            "database": endpoints.clickhouse_database,
        },
    }


def _nest(path: list[str], value: Any) -> Tree:
    tree: Any = value
    for part in reversed(path):
        tree = {part: tree}
    return tree if isinstance(tree, dict) else {}


def _merge(below: Tree, above: Tree) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    annotation = model.model_fields[key].annotation
    return (
        annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    )


def _refuse_unknown(tree: Tree, model: type[BaseModel], source: str, path: tuple[str, ...]) -> None:
    for key, value in tree.items():
        if key not in model.model_fields:
            near = difflib.get_close_matches(str(key), model.model_fields, n=1, cutoff=0.5)
            raise ConfigurationError(
                f"unknown setting {'.'.join((*path, str(key)))} (from {source})",
                f"did you mean {'.'.join((*path, near[0]))}?"
                if near
                else f"known here: {', '.join(sorted(model.model_fields))}",
            )
        section = _section(model, key)
        if section is not None:
            if not isinstance(value, dict):
                raise ConfigurationError(
                    f"{'.'.join((*path, key))} is a section, not a value (from {source})"
                )
            _refuse_unknown(value, section, source, (*path, key))


def _paths(tree: Tree, model: type[BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    for key, value in tree.items():
        section = _section(model, key) if key in model.model_fields else None
        if section is not None and isinstance(value, dict):
            yield from _paths(value, section, (*path, key))
        else:
            yield ".".join((*path, key))


def _leaves(model: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*path, name))
        else:
            yield ".".join((*path, name)), value
