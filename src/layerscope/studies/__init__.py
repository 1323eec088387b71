"""Reproductions: one package a paper, one file a figure or table."""
