"""What a relying party does that knows OpenID Connect and no SPIFFE: argv: authority PEM, discovery URL, audience; token on stdin."""
import json
import ssl
import sys
import urllib.request

import jwt

authority, url, audience = sys.argv[1:4]
token = sys.stdin.read().strip()
context = ssl.create_default_context(cafile=authority)
with urllib.request.urlopen(url, context=context) as answer:
    configuration = json.load(answer)
    cached = answer.headers["Cache-Control"]
keys = jwt.PyJWKClient(configuration["jwks_uri"], ssl_context=context)
key = keys.get_signing_key_from_jwt(token)
algorithms = configuration["id_token_signing_alg_values_supported"]
claims = jwt.decode(token, key.key, algorithms=algorithms, audience=audience, issuer=configuration["issuer"])
try:
    jwt.decode(token, key.key, algorithms=algorithms, audience="somebody else", issuer=configuration["issuer"])
    refused = False
except jwt.InvalidAudienceError:
    refused = True
print(json.dumps({"sub": claims["sub"], "iss": claims["iss"], "kid": key.key_id, "refused": refused, "cached": cached}))
