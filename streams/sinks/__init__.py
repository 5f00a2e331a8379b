"""The ClickHouse sink: telemetry, weights and dead letters become rows, each exactly once.

`work.py` holds the theory of operation; everything that decides is pure, `store.py`, `letters.py`
and `loop.py` are the edges.
"""
