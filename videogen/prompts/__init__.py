"""Prompts written by chat models: enhanced prompts and captions of videos."""
