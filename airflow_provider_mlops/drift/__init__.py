"""Has this data moved, and does it matter? Profiles (`drift.profile`), their comparison (`drift.check`), the port."""
