"""Turns the settings into the topology's configuration, reading router matrices from their files."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np

from routekeel.operators.config import DEFAULT, STRICT, ConfigError
from routekeel.streams.errors import ConfigurationError
from routekeel.streams.settings import Settings
from routekeel.streams.settings.tree import RouterMatrixSettings, WorkerSettings
from routekeel.streams.topology.cadence import Cadence
from routekeel.streams.topology.config import RouterGram, TopologyConfig
from routekeel.streams.topology.sizes import largest_output_bytes

log = logging.getLogger(__name__)

PRESETS = {"default": DEFAULT, "strict": STRICT}


def topology_config(settings: Settings) -> TopologyConfig:
    """The topology's configuration. Raises ConfigurationError for a parameter or file that is wrong."""
    worker, control = settings.worker, settings.control
    largest = largest_output_bytes(worker.requests_max_per_session)
    if settings.topics.record_bytes_max < largest:
        log.warning(
            "topics.record_bytes_max is %d: state and outputs of the largest models can take %d bytes "
            "with worker.requests_max_per_session = %d, and the worker ends where one does not fit",
            settings.topics.record_bytes_max, largest, worker.requests_max_per_session,
        )  # fmt: skip
    parameters: dict[str, Any] = dict(control.parameters)
    try:
        law = replace(PRESETS[control.preset], **parameters)
    except (ConfigError, TypeError) as error:
        raise ConfigurationError(f"control.parameters: {error}") from error
    return TopologyConfig(
        control=law,
        kernel=worker.kernel,
        policy_version=control.policy_version,
        policy_arm=control.arm,
        session_ttl_us=int(worker.session_ttl_s * 1e6),
        sessions_max=worker.sessions_max_per_partition,
        requests_max=worker.requests_max_per_session,
        event_time_skew_us=int(worker.event_time_skew_max_s * 1e6),
        token_rows_share=worker.token_rows_share,
        cadence=cadence_of(worker),
        record_bytes_max=settings.topics.record_bytes_max,
        router_grams={(m.model, m.model_revision): _read_gram(m) for m in worker.router_matrices},
    )


def cadence_of(worker: WorkerSettings) -> Cadence:
    """When routes and states are published."""
    return Cadence(
        worker.weights_every_tokens,
        worker.state_every_tokens,
        math.nan if worker.weights_change is None else worker.weights_change,
        worker.weights_precision,
    )


def _read_gram(matrix: RouterMatrixSettings) -> RouterGram:
    try:
        with np.load(matrix.path, allow_pickle=False) as file:
            layers, gram = file["layers"], np.ascontiguousarray(file["gram"], np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise ConfigurationError(
            f"worker.router_matrices: cannot read {matrix.path} ({error})",
            "an .npz file with `layers` int32[L] and `gram` float32[L, E, E] is expected",
        ) from error
    if gram.ndim != 3 or gram.shape[1] != gram.shape[2] or len(layers) != len(gram):
        raise ConfigurationError(
            f"worker.router_matrices: {matrix.path} has gram {gram.shape}, layers {layers.shape}"
        )
    return RouterGram(gram, {int(layer): index for index, layer in enumerate(layers)})
