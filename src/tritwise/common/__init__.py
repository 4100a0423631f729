"""What every room may use: the error type, atomic files with hashes, progress on a terminal or in a log."""
