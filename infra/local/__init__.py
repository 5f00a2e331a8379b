"""The local stack: a real Kafka, a schema registry and the ClickHouse engine, without containers.

`routekeel.infra.local.stack.LocalStack` is the way in; everything else here serves it.
"""
