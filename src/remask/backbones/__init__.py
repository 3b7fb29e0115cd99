"""Pretrained mixtures of experts: how their files are laid out, held in 4 bits, placed, counted and written again."""
