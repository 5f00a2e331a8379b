"""The `routekeel` command, one file per group of commands."""
