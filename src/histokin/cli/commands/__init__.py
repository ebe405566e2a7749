"""One command a file; each module holds one `command`."""
