"""What a run is worth: likelihood, sample quality, and the trivial predictors beside them."""
