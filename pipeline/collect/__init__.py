"""People compare answers: a page on loopback, their labels, what they agree on, what to ask next."""
