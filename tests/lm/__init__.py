"""Tests of pipeline/lm."""
