"""What runs jobs: one module per way to run them."""
