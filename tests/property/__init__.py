"""Laws that hold for every input. What a first example would have to compile is compiled before."""

import routekeel.streams.wire.frame
import routekeel.streams.wire.spans  # noqa: F401
