"""Has this data moved, and does it matter? Profiles, their comparison, and the port that makes them."""
