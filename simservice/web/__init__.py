"""What people look at in a browser: pages that need nothing but themselves."""
