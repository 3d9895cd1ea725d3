"""One signed call through the bus, and the proof of it: what ``helm test`` runs, in the bus's own image.

The receipt is verified with the log's key that the operator gave, and with nothing that the bus says of itself. It
exits 0 when all of it is true, and otherwise 1 with a line that says what is not.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from gsb.client import Client, ClientError
from gsb.evidence.checkpoint import Verifier
from gsb.evidence.verify import LogWrong, verify_receipt
from gsb.jwk import PrivateKey, read_private


async def tried(key: PrivateKey, verifier: Verifier) -> None:
    """Raises ClientError, or LogWrong, which is a ValueError."""
    said = os.environ
    async with Client(said["GSB_URL"], bus=said["GSB_BUS"], agency=said["GSB_AGENCY"], key=key) as client:
        result = await client.call(said["SMOKE_SERVICE"], json.loads(said["SMOKE_BODY"]), purpose=said["SMOKE_PURPOSE"])
        print(f"{said['SMOKE_SERVICE']} answered: {result.exchange} is {result.state}", flush=True)
        proven = verify_receipt(await client.receipt(result.exchange or ""), verifier)
    if json.loads(proven.entry)["exchange"] != result.exchange:
        raise LogWrong(None, "the receipt", "it proves another exchange")
    print("its receipt is in the evidence log")


def main() -> int:
    try:
        key = read_private(Path(os.environ["GSB_KEY"]).read_bytes())
        asyncio.run(tried(key, Verifier.of(os.environ["GSB_LOG_KEY"])))
    except (ClientError, OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
