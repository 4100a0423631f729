"""The command line: `app` reads the arguments, `commands/` holds one thin file a verb.

A command imports what it needs inside the function, so that `tritwise --help` starts at once.
"""
