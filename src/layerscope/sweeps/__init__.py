"""Whole populations: a grid of trainings in one folder, its summary, its status, and the maps of all its members."""
