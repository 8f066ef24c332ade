"""Experiments over data sets, seeds and methods that anybody can repeat: job matrices, tables, the claims that they test."""
