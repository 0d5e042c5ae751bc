"""Adapters: one library each, behind a port of the core. The only rooms that import these libraries."""
