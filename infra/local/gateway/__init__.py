"""ClickHouse's HTTP protocol in front of the embedded engine (chDB).

Only one process may open a chDB folder; this one owns it, and every component talks to it with
the same client library as to a ClickHouse server.
"""
