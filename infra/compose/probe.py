"""`python -m routekeel.infra.compose.probe URL`: exit 0 when the page answers with 200.

The slim image has neither curl nor wget, and a health check should not add one.
"""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

TIMEOUT_S = 4.0


def answers(url: str) -> bool:
    """Whether a GET of the http URL is answered with 200."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(
        place.hostname or "127.0.0.1", place.port or 80, timeout=TIMEOUT_S
    )
    try:
        connection.request("GET", place.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if len(sys.argv) == 2 and answers(sys.argv[1]) else 1)
