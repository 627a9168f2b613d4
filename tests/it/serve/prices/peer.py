"""Prices calls with the Python engine of genai-prices, by the table given.

    python peer.py TABLE.json < calls.jsonl > prices.jsonl

The table is loaded the way the package loads a newer one: from a URL, here on loopback. A call is {provider, url, model,
at (nanoseconds), usage, context}; its price {nanos, by_token, by_what_was_told}, or
{error}: whether the model's price hangs on tokens, and on any of the units that the call counts.
"""

import http.server
import json
import logging
import sys
import threading
import warnings
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal

from genai_prices import UpdatePrices, Usage, calc_price
from genai_prices.units import _get_registry

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def load(path):
    with open(path, 'rb') as file:
        table = file.read()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header('Content-Length', str(len(table)))
            self.end_headers()
            self.wfile.write(table)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    updates = UpdatePrices(url=f'http://127.0.0.1:{server.server_address[1]}/')
    updates.start()
    if not updates.wait(60):
        sys.exit('the table was not loaded')
    updates.stop()
    server.shutdown()


def price(call):
    at = EPOCH + timedelta(microseconds=call['at'] // 1000)
    where = {}
    if call['provider'] is not None:
        where['provider_id'] = call['provider']
    elif call['url'] is not None:
        where['provider_api_url'] = call['url']
    try:
        found = calc_price(
            Usage(**call['usage']),
            call['model'],
            genai_request_timestamp=at,
            price_context=call['context'] or None,
            **where,
        )
    except (LookupError, ValueError) as error:
        return {'error': str(error)}
    told = {_get_registry().units[key].price_key for key in call['usage']}
    prices = [key for key, value in vars(found.model_price).items() if value is not None]
    nanos = (found.total_price * 10**9).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    by_token = not prices or any(key.endswith('_mtok') for key in prices)
    return {'nanos': int(nanos), 'by_token': by_token, 'by_what_was_told': not told.isdisjoint(prices)}


logging.disable(logging.CRITICAL)
warnings.simplefilter('ignore')
load(sys.argv[1])
for line in sys.stdin:
    print(json.dumps(price(json.loads(line))))
