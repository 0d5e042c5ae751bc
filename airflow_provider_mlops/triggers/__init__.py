"""What waits in the triggerer for things that outlive a worker."""
