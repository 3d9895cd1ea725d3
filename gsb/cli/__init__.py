"""The command ``gsb``: one file for each group of commands."""
