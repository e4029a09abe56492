"""Figures for a paper: one file each, drawn by matplotlib, with the numbers drawn beside them."""
