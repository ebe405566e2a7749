"""Pipeline: the stages in their order over one workspace; `run`, `demo`, and what joins a search to its tables.

Owns no algorithm: it reads, calls a room, and files what came back.
"""
