"""Hand out items, ask an endpoint, judge the answers, and settle the outcomes."""
