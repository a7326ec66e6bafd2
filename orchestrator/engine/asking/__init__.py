"""asking: items are handed out, asked at an endpoint, judged, and settled."""
