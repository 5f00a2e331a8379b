"""How routekeel runs: the local stack without containers, configuration, DDL and provisioning.

Imports only routekeel.schemas and libraries, so that operating code never drags in the engine.
"""
