"""Recipes: what they may say, how they are read and written, and what they build."""
