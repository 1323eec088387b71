"""Questions that need many variants, put to the engine."""
