"""LAYER 5: a report as text for a terminal and as one HTML file with charts; its data and words are `domain/`'s."""
