"""Independent programs that the tests hold routekeel against."""
