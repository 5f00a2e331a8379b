"""Sources of router logits beside an inference engine: files and a synthetic load."""
