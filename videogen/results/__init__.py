"""Where results go, what is recorded beside them, and what is kept of unfinished ones."""
