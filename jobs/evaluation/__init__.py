"""What `jobs/evaluate.py` is made of."""
