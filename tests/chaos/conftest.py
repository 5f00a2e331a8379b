"""The same stack and systems as in tests/stack."""

from tests.stack.conftest import local_stack, system

__all__ = ["local_stack", "system"]
