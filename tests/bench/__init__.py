"""Benchmarks: never asserted by a test, always printed with what is worse."""
