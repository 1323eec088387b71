"""What evaluates variants: `replay`, the exact engine, and `reference`, its slow and obvious twin."""
