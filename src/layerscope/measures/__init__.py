"""What is measured on a network's values alone. A new measure is one file here."""
