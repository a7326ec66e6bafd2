"""Managing endpoints for the user: find, check, list, create, change, scale to zero and delete them."""
