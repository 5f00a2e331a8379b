"""The end-to-end tests of the local stack again, on the official images."""

from __future__ import annotations

import pytest

from tests.stack.test_end_to_end import (
    test_a_recreated_topic_is_taken_for_a_new_log,
    test_bad_records_go_to_the_dlq_whole_and_the_rest_goes_on,
    test_synthetic_load_arrives_once_and_stock_consumers_read_it,
)

__all__ = [
    "test_a_recreated_topic_is_taken_for_a_new_log",
    "test_bad_records_go_to_the_dlq_whole_and_the_rest_goes_on",
    "test_synthetic_load_arrives_once_and_stock_consumers_read_it",
]

pytestmark = pytest.mark.docker
