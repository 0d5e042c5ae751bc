"""Drift engines: each turns data into profiles where the data lies."""
