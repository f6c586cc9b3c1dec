"""What `jobs/train.py` is made of."""
