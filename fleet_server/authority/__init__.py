"""The authority that certifies devices: its keys, what it signs, and who follows it."""
