"""Monitoring Corp.'s API: what its machine is doing. It listens on the machine's own loopback and nowhere else."""

import os
import time

from flask import Flask, request

started = time.monotonic()
app = Flask(__name__)


@app.get("/status")
def status():
    """The machine's load, and who asked, as they say."""
    one, five, fifteen = os.getloadavg()
    return {
        "asked_by": request.args.get("asked_by", "nobody"),
        "load": {"1m": one, "5m": five, "15m": fifteen},
        "up_seconds": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=5000)
