"""What a network does to signals and gradients."""
