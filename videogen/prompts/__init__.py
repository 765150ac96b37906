"""Prompts written by models: a short one made longer, a video put into words."""
