"""Avro in bulk: a batch's records decoded into columns and outputs encoded from them, compiled.

Driven by the same declarations as everything else (`routekeel.schemas.records`). It accepts only what
it is sure of; fastavro stays the reference, and the way for every record that is refused here.
"""
