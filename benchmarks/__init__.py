"""What hostline costs, measured against references in the same run: see README.md here."""
