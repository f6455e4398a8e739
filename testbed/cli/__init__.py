"""The commands of `weavelab`: their words and help, what they call, what they show, their exit codes.

`main` is the way in and names the file of every command. Nothing is decided here that somebody who imports weavelab
would want, too: a command parses, calls a room below, and shows.
"""
