"""A report as text for a terminal, and as one HTML file with charts. Its data and wording are in `domain/`."""
