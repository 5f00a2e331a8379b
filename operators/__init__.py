"""The pure core: router logits in, controlled routes and their telemetry out.

No clock, no I/O, no logging, no asyncio: the same bytes in give the same bytes out, on any CPU.
One idea per file; `step` composes them, `catalog` lists every metric with its formula.
"""
