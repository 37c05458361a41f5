"""Data of builds and runs: logs, recordings, snapshots, and the rows that are cut from them."""
