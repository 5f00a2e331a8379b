"""Inference engines behind one declared contract; each is imported only when it is asked for."""
