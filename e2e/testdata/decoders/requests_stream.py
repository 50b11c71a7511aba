"""Prints a stream as requests decodes it, line by line as it comes."""

import sys

import requests

url, last_id = sys.argv[1:3]
headers = {"Accept": "text/event-stream"}
if last_id:
    headers["Last-Event-ID"] = last_id
with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
    for piece in answer.iter_content(chunk_size=None):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
