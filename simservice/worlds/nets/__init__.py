"""Networks that families are made of."""
