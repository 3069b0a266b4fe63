"""The kernel: processes, system calls, the journal, labels, and what may be done."""
