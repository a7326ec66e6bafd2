"""Hand out items, ask an endpoint, judge the answers, and settle the outcomes.

In `engine/asking/`, `fanout.py` has the workers of one connection, `attempts.py` sends one request and judges its
items, `concurrency.py` says how many requests and of how many items, and `breaker.py` holds failures in a row back
until they are judged.
"""
