"""What happened, in order, provably: records, their hash chain, and the port that keeps them."""

from airflow_provider_mlops.journal.port import Journal, append_decided, append_next, model_stream, read_intact
from airflow_provider_mlops.journal.record import Break, Entry, Head, Record, verify

__all__ = [
    "Break",
    "Entry",
    "Head",
    "Journal",
    "Record",
    "append_decided",
    "append_next",
    "model_stream",
    "read_intact",
    "verify",
]
