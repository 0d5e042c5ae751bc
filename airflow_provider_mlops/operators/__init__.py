"""Operators: each takes strings and numbers and returns a small flat mapping."""
