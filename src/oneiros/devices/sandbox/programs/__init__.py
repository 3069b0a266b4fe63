"""Programs that run in the sandbox. They import nothing of Oneiros."""
