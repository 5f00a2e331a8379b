"""The history in ClickHouse: connections, audit, queries, frames."""
