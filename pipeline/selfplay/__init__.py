"""Agents that learn a board game from nothing but its rules, by playing against themselves (AlphaZero)."""
