"""What the server decides, as pure functions of values: no I/O, no SQL, no clock."""
