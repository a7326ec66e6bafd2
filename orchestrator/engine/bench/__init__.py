"""Load tests: offer an endpoint a load for a while, and measure how it answers."""
