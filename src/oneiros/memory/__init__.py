"""Memory: the context's pages (RAM), and files with their index (disk)."""
