"""The MQTT broker beside the server: its process, its files, and who is kept off it."""
