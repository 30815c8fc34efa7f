"""Health check of a container: asks a URL, and exits with 0 if the answer is 200, else with 1 and the reason."""

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4.0

try:
    urllib.request.urlopen(sys.argv[1], timeout=TIMEOUT_S).close()
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code}: {error.read(2000).decode('utf-8', 'replace')}")
except OSError as error:
    sys.exit(str(error))
