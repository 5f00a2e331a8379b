"""A small schema registry with the REST interface that Confluent's clients speak.

Its memory is a compacted topic of the broker, in the layout that Confluent's own registry uses.
"""
