"""One file a verb: read the options, call the room that does the work, print what it answered."""
