-- Rendered from schemas/records by `routekeel schemas --write`; a test fails where this differs.
-- Every statement may be run again. TTL days are the defaults; see schemas/clickhouse.py.

CREATE DATABASE IF NOT EXISTS `routekeel` ON CLUSTER `{cluster}`;

CREATE TABLE IF NOT EXISTS `routekeel`.`telemetry_local` ON CLUSTER `{cluster}`
(
    `log_topic` LowCardinality(String) COMMENT 'Topic that the sink read this row from.' CODEC(ZSTD(1)),
    `log_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic.' CODEC(ZSTD(1)),
    `log_partition` Int32 COMMENT 'Partition of that topic.' CODEC(ZSTD(1)),
    `log_offset` Int64 COMMENT 'Offset in that partition.' CODEC(Delta, ZSTD(1)),
    `log_time` DateTime64(3, 'UTC') COMMENT 'Kafka\'s time of the record.' CODEC(Delta, ZSTD(1)),
    `source_topic` LowCardinality(String) COMMENT 'Topic of the chunk that this was computed from.' CODEC(ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic; tells a recreated topic from the old one.' CODEC(ZSTD(1)),
    `source_partition` Int32 COMMENT 'Partition of the chunk.' CODEC(ZSTD(1)),
    `source_offset` Int64 COMMENT 'Offset of the chunk; with the two above the deterministic id.' CODEC(Delta, ZSTD(1)),
    `session_id` String COMMENT 'The conversation; key of the topic.' CODEC(ZSTD(1)),
    `request_id` String COMMENT 'The request within the session.' CODEC(ZSTD(1)),
    `model` LowCardinality(String) COMMENT 'Name of the model.' CODEC(ZSTD(1)),
    `model_revision` LowCardinality(String) COMMENT 'Revision of the weights.' CODEC(ZSTD(1)),
    `backend` LowCardinality(String) COMMENT 'Inference engine.' CODEC(ZSTD(1)),
    `worker_id` LowCardinality(String) COMMENT 'Inference worker.' CODEC(ZSTD(1)),
    `producer_epoch` Int64 COMMENT 'Start of the producing process. [µs since 1970]' CODEC(ZSTD(1)),
    `sequence` Int64 COMMENT 'The producer\'s count of this session\'s chunks.' CODEC(ZSTD(1)),
    `event_time_us` DateTime64(6, 'UTC') COMMENT 'When the last token of the chunk was computed. [µs]' CODEC(Delta, ZSTD(1)),
    `phase` LowCardinality(String) COMMENT 'Prefill or decode.' CODEC(ZSTD(1)),
    `position` Int64 COMMENT 'Position, in the request, of the chunk\'s first token.' CODEC(ZSTD(1)),
    `steps` Int32 COMMENT 'T, tokens in the chunk.' CODEC(ZSTD(1)),
    `experts` Int32 COMMENT 'E, routed experts.' CODEC(ZSTD(1)),
    `top_k` Int32 COMMENT 'Experts activated per token.' CODEC(ZSTD(1)),
    `router_kind` LowCardinality(String) COMMENT 'softmax, sigmoid, …' CODEC(ZSTD(1)),
    `policy_version` Int64 COMMENT 'Version of the policy in force; 0 is the configured default.' CODEC(ZSTD(1)),
    `policy_arm` LowCardinality(String) COMMENT 'Arm of the policy: shadow, control, canary, …' CODEC(ZSTD(1)),
    `tokens_applied` Int32 COMMENT 'Tokens that were new at one layer at least; 0: the chunk is a repeat.' CODEC(ZSTD(1)),
    `rows_repeated` Int32 COMMENT '(token, layer) rows that had been applied before and changed nothing.' CODEC(ZSTD(1)),
    `positions_missing` Int64 COMMENT 'Tokens missing before this chunk (a gap in positions).' CODEC(ZSTD(1)),
    `sequences_missing` Int64 COMMENT 'Chunks missing before this one by the producer\'s count.' CODEC(ZSTD(1)),
    `state_reset` LowCardinality(String) COMMENT 'Why the session\'s state began anew here; empty where it did not.' CODEC(ZSTD(1)),
    `dropped_before` Int64 COMMENT 'Chunks the SDK says it dropped before this one.' CODEC(ZSTD(1)),
    `ambiguity_mask` Int32 COMMENT 'Components used in A*: 1 predictive, 2 paraphrase, 4 specification, 8 routing.' CODEC(ZSTD(1)),
    `a_star` Nullable(Float32) COMMENT 'Mean A* over the applied tokens. [0…1]' CODEC(ALP, ZSTD(1)),
    `a_exogenous` Nullable(Float32) COMMENT 'The same without the routing component. [0…1]' CODEC(ALP, ZSTD(1)),
    `clarity` Nullable(Float32) COMMENT 'C = 1 − A*. [0…1]' CODEC(ALP, ZSTD(1)),
    `ambiguity_predictive` Nullable(Float32) COMMENT 'Mean predictive component. [0…1]' CODEC(ALP, ZSTD(1)),
    `ambiguity_paraphrase` Nullable(Float32) COMMENT 'Mean paraphrase component. [0…1]' CODEC(ALP, ZSTD(1)),
    `ambiguity_specification` Nullable(Float32) COMMENT 'Mean specification component. [0…1]' CODEC(ALP, ZSTD(1)),
    `ambiguity_routing` Nullable(Float32) COMMENT 'Mean routing component H_route/ln E. [0…1]' CODEC(ALP, ZSTD(1)),
    `layer` Int32 COMMENT 'Layer id.' CODEC(ZSTD(1)),
    `tokens` UInt32 COMMENT 'Tokens applied at this layer.' CODEC(T64, ZSTD(1)),
    `beta` Nullable(Float32) COMMENT 'Mean β. [β_min…β_max]' CODEC(ALP, ZSTD(1)),
    `lam` Nullable(Float32) COMMENT 'Mean λ. [λ_min…λ_max]' CODEC(ALP, ZSTD(1)),
    `route_entropy` Nullable(Float32) COMMENT 'Mean H of softmax(z). [nats, 0…ln E]' CODEC(ALP, ZSTD(1)),
    `relative_entropy` Nullable(Float32) COMMENT 'Mean R_H of ŵ, H/ln E. [0…1]' CODEC(ALP, ZSTD(1)),
    `participation` Nullable(Float32) COMMENT 'Mean R_PR of ŵ, 1/Σŵ². [1…E]' CODEC(ALP, ZSTD(1)),
    `vertex_distance` Nullable(Float32) COMMENT 'Mean distance of ŵ to a vertex, 1 − max ŵ. [0…1]' CODEC(ALP, ZSTD(1)),
    `grad_norm` Nullable(Float32) COMMENT 'Mean ‖∇w‖ = λβ‖Σ(w)‖_F.' CODEC(ALP, ZSTD(1)),
    `g_base` Nullable(Float32) COMMENT 'Mean G at β = 1, λ = 1. [0…½]' CODEC(ALP, ZSTD(1)),
    `g_base_max` Nullable(Float32) COMMENT 'Largest G base of the chunk. [0…½]' CODEC(ALP, ZSTD(1)),
    `g_controlled` Nullable(Float32) COMMENT 'Mean G under the controls.' CODEC(ALP, ZSTD(1)),
    `g_controlled_max` Nullable(Float32) COMMENT 'Largest G controlled of the chunk.' CODEC(ALP, ZSTD(1)),
    `g_secant_base` Nullable(Float32) COMMENT 'Mean ‖Δw‖/‖Δz‖ of softmax(z).' CODEC(ALP, ZSTD(1)),
    `g_secant_controlled` Nullable(Float32) COMMENT 'Mean ‖Δŵ‖/‖Δz‖.' CODEC(ALP, ZSTD(1)),
    `g_hidden_base` Nullable(Float32) COMMENT 'Mean G base in hidden space, ‖ΣW‖₂.' CODEC(ALP, ZSTD(1)),
    `g_hidden_controlled` Nullable(Float32) COMMENT 'Mean G controlled in hidden space.' CODEC(ALP, ZSTD(1)),
    `flip_distance_min` Nullable(Float32) COMMENT 'Smallest flip distance of the chunk.' CODEC(ALP, ZSTD(1)),
    `margin` Nullable(Float32) COMMENT 'Mean margin at the top-k edge. [logits]' CODEC(ALP, ZSTD(1)),
    `margin_min` Nullable(Float32) COMMENT 'Smallest margin of the chunk. [logits]' CODEC(ALP, ZSTD(1)),
    `self_similarity` Nullable(Float32) COMMENT 'Mean S = Σ√(ŵ_t ŵ_{t−1}). [0…1]' CODEC(ALP, ZSTD(1)),
    `distance` Nullable(Float32) COMMENT 'Mean ‖w − ŵ_{t−1}‖₂. [0…√2]' CODEC(ALP, ZSTD(1)),
    `delta_w_hat` Nullable(Float32) COMMENT 'Mean ‖ŵ_t − ŵ_{t−1}‖₂ (jitter). [0…√2]' CODEC(ALP, ZSTD(1)),
    `winner_flips_base` UInt32 COMMENT 'How often the argmax of softmax(z) changed.' CODEC(T64, ZSTD(1)),
    `winner_flips_controlled` UInt32 COMMENT 'How often the argmax of ŵ changed.' CODEC(T64, ZSTD(1)),
    `pi_error` Nullable(Float32) COMMENT 'PI error after the last token.' CODEC(ALP, ZSTD(1)),
    `pi_integral` Nullable(Float32) COMMENT 'PI integral after the last token.' CODEC(ALP, ZSTD(1)),
    `pi_output` Nullable(Float32) COMMENT 'PI output after the last token.' CODEC(ALP, ZSTD(1)),
    `spikes` UInt32 COMMENT 'Spikes counted.' CODEC(T64, ZSTD(1)),
    `held` UInt32 COMMENT 'Tokens held by the guard.' CODEC(T64, ZSTD(1)),
    `load_max_over_mean` Nullable(Float32) COMMENT 'Largest expert load over the mean load. [1…E]' CODEC(ALP, ZSTD(1)),
    `load_cv` Nullable(Float32) COMMENT 'Coefficient of variation of the expert load. [≥ 0]' CODEC(ALP, ZSTD(1)),
    `g_probe` Nullable(Float32) COMMENT 'Median ‖Δw‖/‖Δx‖ of the probe.' CODEC(ALP, ZSTD(1)),
    `l_perp` Nullable(Float32) COMMENT 'L⊥, median ‖Δy‖/‖Δx‖ across the drift; < 1 is contraction.' CODEC(ALP, ZSTD(1)),
    `l_para` Nullable(Float32) COMMENT 'L∥, ‖Δy‖/‖Δx‖ along the drift.' CODEC(ALP, ZSTD(1)),
    `load` Array(UInt16) COMMENT 'Tokens whose base top-k chose each expert.' CODEC(ZSTD(1)),
    `load_controlled` Array(UInt16) COMMENT 'The same for the top-k of ŵ.' CODEC(ZSTD(1)),
    `probe_epsilon` Nullable(Float32) COMMENT 'Relative size of the probe\'s perturbation.' CODEC(ZSTD(1)),
    `probe_basis_id` LowCardinality(Nullable(String)) COMMENT 'Set of directions the probe used.' CODEC(ZSTD(1)),
    `probe_directions` Nullable(Int32) COMMENT 'K of the probe.' CODEC(ZSTD(1)),
    `latency_us` Nullable(Int64) COMMENT 'Engine time for the chunk. [µs]' CODEC(ZSTD(1)),
    `success` Nullable(Bool) COMMENT 'Whether the request succeeded.' CODEC(ZSTD(1)),
    `judge_score` Nullable(Float64) COMMENT 'Quality score.' CODEC(ZSTD(1)),
    `task_type` LowCardinality(Nullable(String)) COMMENT 'The caller\'s label.' CODEC(ZSTD(1)),
    `applied_policy_version` Nullable(Int64) COMMENT 'Policy that the worker applied, if any.' CODEC(ZSTD(1)),
    `provenance_ambiguity` LowCardinality(String) COMMENT 'Where this comes from: A* and its components.' CODEC(ZSTD(1)),
    `provenance_route` LowCardinality(String) COMMENT 'Where this comes from: entropy, flips, margins, load, self-similarity.' CODEC(ZSTD(1)),
    `provenance_sensitivity` LowCardinality(String) COMMENT 'Where this comes from: G base, controlled and secant, ‖∇w‖ in logit space.' CODEC(ZSTD(1)),
    `provenance_hidden` LowCardinality(String) COMMENT 'Where this comes from: G in hidden space (needs the router matrix).' CODEC(ZSTD(1)),
    `provenance_flip_distance` LowCardinality(String) COMMENT 'Where this comes from: flip distance (needs the router matrix).' CODEC(ZSTD(1)),
    `provenance_probe` LowCardinality(String) COMMENT 'Where this comes from: L⊥, L∥ and G probe.' CODEC(ZSTD(1)),
    `provenance_latency` LowCardinality(String) COMMENT 'Where this comes from: latency_us.' CODEC(ZSTD(1)),
    `provenance_quality` LowCardinality(String) COMMENT 'Where this comes from: success and judge_score.' CODEC(ZSTD(1)),
    `inserted_at` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted.' CODEC(Delta, ZSTD(1)),
    PROJECTION last_offset (
        SELECT
            log_topic_id, log_partition, source_topic_id, source_partition,
            max(log_offset), max(source_offset)
        GROUP BY log_topic_id, log_partition, source_topic_id, source_partition
    ),
    PROJECTION by_session (SELECT _part_offset ORDER BY session_id),
    PROJECTION by_source (
        SELECT _part_offset ORDER BY source_topic_id, source_partition, source_offset
    )
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMMDD(log_time)
ORDER BY (model, toStartOfHour(event_time_us), session_id, layer, position)
TTL toDateTime(log_time) + INTERVAL 90 DAY
SETTINGS
    replicated_deduplication_window = 10000,
    ttl_only_drop_parts = 1,
    lightweight_mutation_projection_mode = 'rebuild',
    replicated_deduplication_window_seconds = 1209600,
    enable_alp_codec = 1
COMMENT 'Metrics of one layer over the tokens of one chunk.';

CREATE TABLE IF NOT EXISTS `routekeel`.`telemetry` ON CLUSTER `{cluster}`
AS `routekeel`.`telemetry_local`
ENGINE = Distributed('{cluster}', 'routekeel', 'telemetry_local', log_partition);

CREATE TABLE IF NOT EXISTS `routekeel`.`telemetry_tokens_local` ON CLUSTER `{cluster}`
(
    `log_topic` LowCardinality(String) COMMENT 'Topic that the sink read this row from.' CODEC(ZSTD(1)),
    `log_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic.' CODEC(ZSTD(1)),
    `log_partition` Int32 COMMENT 'Partition of that topic.' CODEC(ZSTD(1)),
    `log_offset` Int64 COMMENT 'Offset in that partition.' CODEC(Delta, ZSTD(1)),
    `log_time` DateTime64(3, 'UTC') COMMENT 'Kafka\'s time of the record.' CODEC(Delta, ZSTD(1)),
    `source_topic` LowCardinality(String) COMMENT 'Topic of the chunk that this was computed from.' CODEC(ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic; tells a recreated topic from the old one.' CODEC(ZSTD(1)),
    `source_partition` Int32 COMMENT 'Partition of the chunk.' CODEC(ZSTD(1)),
    `source_offset` Int64 COMMENT 'Offset of the chunk; with the two above the deterministic id.' CODEC(Delta, ZSTD(1)),
    `session_id` String COMMENT 'The conversation; key of the topic.' CODEC(ZSTD(1)),
    `request_id` String COMMENT 'The request within the session.' CODEC(ZSTD(1)),
    `model` LowCardinality(String) COMMENT 'Name of the model.' CODEC(ZSTD(1)),
    `model_revision` LowCardinality(String) COMMENT 'Revision of the weights.' CODEC(ZSTD(1)),
    `event_time_us` DateTime64(6, 'UTC') COMMENT 'When the last token of the chunk was computed. [µs]' CODEC(Delta, ZSTD(1)),
    `phase` LowCardinality(String) COMMENT 'Prefill or decode.' CODEC(ZSTD(1)),
    `policy_version` Int64 COMMENT 'Version of the policy in force; 0 is the configured default.' CODEC(ZSTD(1)),
    `policy_arm` LowCardinality(String) COMMENT 'Arm of the policy: shadow, control, canary, …' CODEC(ZSTD(1)),
    `position` Int64 COMMENT 'Position of the token in the request.' CODEC(Delta, ZSTD(1)),
    `layer` Int32 COMMENT 'Layer id.' CODEC(ZSTD(1)),
    `token_id` Nullable(Int32) COMMENT 'Token ids, where the chunk had them.' CODEC(ZSTD(1)),
    `a_star` Nullable(Float32) COMMENT 'A* of each token. [0…1]' CODEC(ALP, ZSTD(1)),
    `applied` UInt8 COMMENT '1 where the row was applied, 0 where it was a repeat.' CODEC(ZSTD(1)),
    `beta` Nullable(Float32) COMMENT 'β.' CODEC(ALP, ZSTD(1)),
    `lam` Nullable(Float32) COMMENT 'λ.' CODEC(ALP, ZSTD(1)),
    `route_entropy` Nullable(Float32) COMMENT 'H of softmax(z). [nats]' CODEC(ALP, ZSTD(1)),
    `g_base` Nullable(Float32) COMMENT 'G at β = 1, λ = 1.' CODEC(ALP, ZSTD(1)),
    `g_controlled` Nullable(Float32) COMMENT 'G under the controls.' CODEC(ALP, ZSTD(1)),
    `margin` Nullable(Float32) COMMENT 'Margin at the top-k edge. [logits]' CODEC(ALP, ZSTD(1)),
    `flip_base` UInt8 COMMENT '1 where the argmax of softmax(z) changed.' CODEC(ZSTD(1)),
    `flip_controlled` UInt8 COMMENT '1 where the argmax of ŵ changed.' CODEC(ZSTD(1)),
    `w_base` Array(Float32) COMMENT 'softmax(z).' CODEC(ALP, ZSTD(1)),
    `w_hat` Array(Float32) COMMENT 'ŵ after each token.' CODEC(ALP, ZSTD(1)),
    `inserted_at` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted.' CODEC(Delta, ZSTD(1)),
    PROJECTION last_offset (
        SELECT
            log_topic_id, log_partition, source_topic_id, source_partition,
            max(log_offset), max(source_offset)
        GROUP BY log_topic_id, log_partition, source_topic_id, source_partition
    ),
    PROJECTION by_session (SELECT _part_offset ORDER BY session_id)
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMMDD(log_time)
ORDER BY (model, toStartOfHour(event_time_us), session_id, layer, position)
TTL toDateTime(log_time) + INTERVAL 7 DAY
SETTINGS
    replicated_deduplication_window = 10000,
    ttl_only_drop_parts = 1,
    lightweight_mutation_projection_mode = 'rebuild',
    replicated_deduplication_window_seconds = 1209600,
    enable_alp_codec = 1
COMMENT 'One token at one layer, for sampled sessions.';

CREATE TABLE IF NOT EXISTS `routekeel`.`telemetry_tokens` ON CLUSTER `{cluster}`
AS `routekeel`.`telemetry_tokens_local`
ENGINE = Distributed('{cluster}', 'routekeel', 'telemetry_tokens_local', log_partition);

CREATE TABLE IF NOT EXISTS `routekeel`.`weights_local` ON CLUSTER `{cluster}`
(
    `log_topic` LowCardinality(String) COMMENT 'Topic that the sink read this row from.' CODEC(ZSTD(1)),
    `log_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic.' CODEC(ZSTD(1)),
    `log_partition` Int32 COMMENT 'Partition of that topic.' CODEC(ZSTD(1)),
    `log_offset` Int64 COMMENT 'Offset in that partition.' CODEC(Delta, ZSTD(1)),
    `log_time` DateTime64(3, 'UTC') COMMENT 'Kafka\'s time of the record.' CODEC(Delta, ZSTD(1)),
    `source_topic` LowCardinality(String) COMMENT 'Topic of the chunk that this was computed from.' CODEC(ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic; tells a recreated topic from the old one.' CODEC(ZSTD(1)),
    `source_partition` Int32 COMMENT 'Partition of the chunk.' CODEC(ZSTD(1)),
    `source_offset` Int64 COMMENT 'Offset of the chunk; with the two above the deterministic id.' CODEC(Delta, ZSTD(1)),
    `session_id` String COMMENT 'The conversation; key of the topic.' CODEC(ZSTD(1)),
    `request_id` String COMMENT 'The request whose chunk led to this state.' CODEC(ZSTD(1)),
    `model` LowCardinality(String) COMMENT 'Name of the model.' CODEC(ZSTD(1)),
    `model_revision` LowCardinality(String) COMMENT 'Revision of the weights.' CODEC(ZSTD(1)),
    `event_time_us` DateTime64(6, 'UTC') COMMENT 'Event time of the chunk. [µs]' CODEC(Delta, ZSTD(1)),
    `policy_version` Int64 COMMENT 'Version of the policy in force; 0 is the configured default.' CODEC(ZSTD(1)),
    `policy_arm` LowCardinality(String) COMMENT 'Arm of the policy: shadow, control, canary, …' CODEC(ZSTD(1)),
    `position` Int64 COMMENT 'Position, in the request, of the last token that this route holds for.' CODEC(ZSTD(1)),
    `layer` Int32 COMMENT 'Layer id.' CODEC(ZSTD(1)),
    `experts` Int32 COMMENT 'E, the number of routed experts.' CODEC(ZSTD(1)),
    `w_hat` Array(Float32) COMMENT 'ŵ, the smoothed route; sums to 1. In a message: empty where w_hat_half holds it.' CODEC(ALP, ZSTD(1)),
    `beta` Nullable(Float32) COMMENT 'β of the last token. [β_min…β_max]' CODEC(ALP, ZSTD(1)),
    `lam` Nullable(Float32) COMMENT 'λ of the last token. [λ_min…λ_max]' CODEC(ALP, ZSTD(1)),
    `inserted_at` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted.' CODEC(Delta, ZSTD(1)),
    PROJECTION last_offset (
        SELECT
            log_topic_id, log_partition, source_topic_id, source_partition,
            max(log_offset), max(source_offset)
        GROUP BY log_topic_id, log_partition, source_topic_id, source_partition
    ),
    PROJECTION by_session (SELECT _part_offset ORDER BY session_id),
    PROJECTION by_source (
        SELECT _part_offset ORDER BY source_topic_id, source_partition, source_offset
    )
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMMDD(log_time)
ORDER BY (model, toStartOfHour(event_time_us), session_id, layer, position)
TTL toDateTime(log_time) + INTERVAL 14 DAY
SETTINGS
    replicated_deduplication_window = 10000,
    ttl_only_drop_parts = 1,
    lightweight_mutation_projection_mode = 'rebuild',
    replicated_deduplication_window_seconds = 1209600,
    enable_alp_codec = 1
COMMENT 'The smoothed route of one layer after one chunk.';

CREATE TABLE IF NOT EXISTS `routekeel`.`weights` ON CLUSTER `{cluster}`
AS `routekeel`.`weights_local`
ENGINE = Distributed('{cluster}', 'routekeel', 'weights_local', log_partition);

CREATE TABLE IF NOT EXISTS `routekeel`.`state_snapshots_local` ON CLUSTER `{cluster}`
(
    `log_topic` LowCardinality(String) COMMENT 'Topic that the sink read this row from.' CODEC(ZSTD(1)),
    `log_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic.' CODEC(ZSTD(1)),
    `log_partition` Int32 COMMENT 'Partition of that topic.' CODEC(ZSTD(1)),
    `log_offset` Int64 COMMENT 'Offset in that partition.' CODEC(Delta, ZSTD(1)),
    `log_time` DateTime64(3, 'UTC') COMMENT 'Kafka\'s time of the record.' CODEC(Delta, ZSTD(1)),
    `source_topic` LowCardinality(String) COMMENT 'Topic of the chunk that this was computed from.' CODEC(ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic; tells a recreated topic from the old one.' CODEC(ZSTD(1)),
    `source_partition` Int32 COMMENT 'Partition of the chunk.' CODEC(ZSTD(1)),
    `source_offset` Int64 COMMENT 'Offset of the chunk; with the two above the deterministic id.' CODEC(Delta, ZSTD(1)),
    `session_id` String COMMENT 'The conversation; key of the topic.' CODEC(ZSTD(1)),
    `model` LowCardinality(String) COMMENT 'Name of the model.' CODEC(ZSTD(1)),
    `model_revision` LowCardinality(String) COMMENT 'Revision of the weights.' CODEC(ZSTD(1)),
    `event_time_us` DateTime64(6, 'UTC') COMMENT 'Event time of the chunk. [µs]' CODEC(Delta, ZSTD(1)),
    `position` Int64 COMMENT 'Position, in the request, of the last token that this route holds for.' CODEC(ZSTD(1)),
    `state` String COMMENT 'Snapshot of the session\'s whole state (streams/topology/session). In a message: empty where it carries none.' CODEC(ZSTD(1)),
    `inserted_at` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted.' CODEC(Delta, ZSTD(1)),
    PROJECTION last_offset (
        SELECT
            log_topic_id, log_partition, source_topic_id, source_partition,
            max(log_offset), max(source_offset)
        GROUP BY log_topic_id, log_partition, source_topic_id, source_partition
    )
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMMDD(log_time)
ORDER BY (source_topic_id, source_partition, source_offset)
TTL toDateTime(log_time) + INTERVAL 30 DAY
SETTINGS
    replicated_deduplication_window = 10000,
    ttl_only_drop_parts = 1,
    lightweight_mutation_projection_mode = 'rebuild',
    replicated_deduplication_window_seconds = 1209600,
    enable_alp_codec = 1
COMMENT 'State of a session after one chunk: where a replay may start.';

CREATE TABLE IF NOT EXISTS `routekeel`.`state_snapshots` ON CLUSTER `{cluster}`
AS `routekeel`.`state_snapshots_local`
ENGINE = Distributed('{cluster}', 'routekeel', 'state_snapshots_local', log_partition);

CREATE TABLE IF NOT EXISTS `routekeel`.`dead_letters_local` ON CLUSTER `{cluster}`
(
    `log_topic` LowCardinality(String) COMMENT 'Topic that the sink read this row from.' CODEC(ZSTD(1)),
    `log_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic.' CODEC(ZSTD(1)),
    `log_partition` Int32 COMMENT 'Partition of that topic.' CODEC(ZSTD(1)),
    `log_offset` Int64 COMMENT 'Offset in that partition.' CODEC(Delta, ZSTD(1)),
    `log_time` DateTime64(3, 'UTC') COMMENT 'Kafka\'s time of the record.' CODEC(Delta, ZSTD(1)),
    `source_topic` LowCardinality(String) COMMENT 'Topic the record was read from.' CODEC(ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of that topic (a recreated topic has another).' CODEC(ZSTD(1)),
    `source_partition` Int32 COMMENT 'Partition of that topic.' CODEC(ZSTD(1)),
    `source_offset` Int64 COMMENT 'Offset in that partition; with the three above, the record\'s identity.' CODEC(Delta, ZSTD(1)),
    `record_time_us` DateTime64(6, 'UTC') COMMENT 'The record\'s Kafka timestamp. [µs]' CODEC(Delta, ZSTD(1)),
    `stage` LowCardinality(String) COMMENT 'Who refused it: worker or sink.' CODEC(ZSTD(1)),
    `error_class` LowCardinality(String) COMMENT 'Machine-readable reason, e.g. unknown_schema_id, non_finite_logits.' CODEC(ZSTD(1)),
    `error_message` String COMMENT 'What is wrong, in a sentence.' CODEC(ZSTD(1)),
    `key` Nullable(String) COMMENT 'The record\'s key.' CODEC(ZSTD(1)),
    `value` Nullable(String) COMMENT 'The record\'s value (null for a tombstone).' CODEC(ZSTD(1)),
    `header_names` Array(String) COMMENT 'Names of the record\'s headers, in order.' CODEC(ZSTD(1)),
    `header_values` Array(Nullable(String)) COMMENT 'Their values, in the same order.' CODEC(ZSTD(1)),
    `value_bytes` Int64 COMMENT 'Length of the value. [bytes]' CODEC(ZSTD(1)),
    `inserted_at` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted.' CODEC(Delta, ZSTD(1)),
    PROJECTION last_offset (
        SELECT
            log_topic_id, log_partition, source_topic_id, source_partition,
            max(log_offset), max(source_offset)
        GROUP BY log_topic_id, log_partition, source_topic_id, source_partition
    )
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMMDD(log_time)
ORDER BY (source_topic_id, source_partition, source_offset)
TTL toDateTime(log_time) + INTERVAL 90 DAY
SETTINGS
    replicated_deduplication_window = 10000,
    ttl_only_drop_parts = 1,
    lightweight_mutation_projection_mode = 'rebuild',
    replicated_deduplication_window_seconds = 1209600,
    enable_alp_codec = 1
COMMENT 'Records that were refused, whole.';

CREATE TABLE IF NOT EXISTS `routekeel`.`dead_letters` ON CLUSTER `{cluster}`
AS `routekeel`.`dead_letters_local`
ENGINE = Distributed('{cluster}', 'routekeel', 'dead_letters_local', log_partition);
