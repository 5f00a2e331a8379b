"""The contenders, one a file, each run in a process of its own: `python -m tests.bench.contenders NAME`."""
