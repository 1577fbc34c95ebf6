"""The command `ascl`, one file a sub-command."""
