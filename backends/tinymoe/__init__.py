"""The bundled model: a small trained Mixtral-shaped router, so that the system has real routes.

Random weights route at random; this one was trained, its routers specialised, and it runs on a CPU.
"""
