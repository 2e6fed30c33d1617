"""Everything that turns a variant, a schedule and a folder of patches into a trained checkpoint."""
