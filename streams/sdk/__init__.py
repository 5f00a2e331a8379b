"""The SDK: what an inference worker imports. Needs only the schemas, NumPy and a Kafka client."""
