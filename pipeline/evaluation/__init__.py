"""Judges, win rates, and how sure one may be of them."""
