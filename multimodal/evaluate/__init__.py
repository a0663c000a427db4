"""Protocols, one file each: which arrays a figure is made of, and the report that shows it beside chance."""
