"""What evaluates variants."""
