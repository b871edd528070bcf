"""Who says which of two answers is better: one protocol, several judges."""
