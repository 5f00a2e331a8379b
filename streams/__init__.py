"""Everything that moves data: producer SDK, stream topology, Faust app, sink, readers, commands."""
