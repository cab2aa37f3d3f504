"""Scores go in, a report comes out: tables, intervals, the choice, sentences, plots, the page."""
