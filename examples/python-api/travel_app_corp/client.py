"""Travel App Corp.'s program: asks the API that the inlet brings to its own localhost, port 5000.

It tries 20 times, a second apart (TRIES says otherwise), as a program does that is started together with the portal. Only
a connection that is refused or closed is tried again: to be left without an answer for a second ends it.
"""

import os
import sys
import time

import requests

URL = "http://localhost:5000/status"
TRIES = int(os.environ.get("TRIES", "20"))
ASKED_BY = os.environ.get("ASKED_BY", "the travel app")

for attempt in range(1, TRIES + 1):
    try:
        response = requests.get(URL, params={"asked_by": ASKED_BY}, timeout=1)
    except requests.exceptions.ConnectionError:
        print(f"try {attempt} of {TRIES}: no connection", flush=True)
        if attempt < TRIES:
            time.sleep(1)
        continue
    response.raise_for_status()
    answer = response.json()
    if answer["asked_by"] != ASKED_BY:
        sys.exit(f"this is the answer to another question: {answer}")
    print(f"the API says: {answer}")
    print("The example run was successful 🥳")
    sys.exit()

sys.exit(f"no connection to {URL} in {TRIES} tries")
