"""Tests of pipeline.rl."""
