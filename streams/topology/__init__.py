"""The stream topology without I/O: records in, outputs and state changes out, one partition at a time."""
