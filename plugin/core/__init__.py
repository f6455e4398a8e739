"""Decisions only: values in, values out. No clock, socket, file, process or random number is touched here."""
