"""Dense networks and their training."""
