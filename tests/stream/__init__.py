"""Code that a property's first example would wait for is compiled before its clock runs."""

import routekeel.streams.wire.frame
import routekeel.streams.wire.spans  # noqa: F401
