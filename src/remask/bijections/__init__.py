"""Text and the noise that makes it: recovered, stored, drawn anew in part, and walked through between two texts.

It works for every model of masking noise, whatever its network; see `samplers.bijection` for the mathematics.
"""
