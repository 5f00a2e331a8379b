"""Which published schema files are released, each pinned by its digest.

Records of a released schema lie in topics and its text in registries: it never changes again, not by a
word. What changes afterwards, compatibly or not, is a new version of the record. To release a file,
add its line: `sha256sum schemas/published/NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

RELEASED: Final[Mapping[str, str]] = {
    "alert.v1.avsc": "33ce83c9a6eeb05e7b850d1a99356889a0f48af8d787af5d7b3343d0cf58d0fa",
    "dead_letter.v1.avsc": "f9014315e10b6b06bcfe35fb72ef66c43a3d82dfe1269d6f531c2f75e26f9662",
    "policy.v1.avsc": "c9500788f10598ffd94b18a29c1e1e6b6e9045c81669c5f7b47e0e21035f099d",
    "router_logits.v1.avsc": "e59809ebd8ded0cdabaf91df019e3a584e664972a6dcc7bd7d0865cfa7c720c2",
    "telemetry.v1.avsc": "9cc1433881d1551a94459cce73ef77108db8102284a0faf3adee0fef9e537c82",
}


def digest(text: str) -> str:
    """The SHA-256 of a published file's text, in hexadecimal.

    >>> digest("")[:16]
    'e3b0c44298fc1c14'
    """
    return sha256(text.encode()).hexdigest()
