"""The data contracts: one declarative list of fields per record, and what is rendered from it."""
