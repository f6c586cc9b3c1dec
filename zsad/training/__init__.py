"""Training recipes: one method a file."""
