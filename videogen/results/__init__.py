"""Paths of results, their sidecars, and the stored segments of unfinished videos."""
