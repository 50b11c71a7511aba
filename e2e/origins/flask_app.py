import os
import time

from flask import Flask, Response, request

EPOCH = int(os.environ["EPOCH_MS"]) / 1000
INTERVAL = 0.05

app = Flask(__name__)


@app.get("/events")
def events():
    newest = int((time.time() - EPOCH) / INTERVAL)
    last = request.headers.get("Last-Event-ID", default=0, type=int)
    first = last + 1 if 0 < last < newest else newest + 1

    def stream():
        n = first
        while True:
            time.sleep(max(0, EPOCH + n * INTERVAL - time.time()))
            yield f'id: {n}\ndata: {{"n":{n}}}\n\n'
            n += 1

    return Response(stream(), mimetype="text/event-stream")
