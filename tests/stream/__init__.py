"""What a property's first example would have to compile is compiled before its clock runs."""

import routekeel.streams.wire.frame
import routekeel.streams.wire.spans  # noqa: F401
