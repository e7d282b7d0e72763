"""What runs around the model: hooks, and the start of a training or a test."""
