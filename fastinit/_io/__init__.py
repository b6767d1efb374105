"""Files and texts."""
