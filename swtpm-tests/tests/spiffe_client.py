"""Fetches, validates and watches X.509-SVIDs, and fetches and validates JWT-SVIDs, with the SPIFFE client for Python; prints what it got as JSON."""

import json
import sys
import threading

from spiffe import JwtSvid, TrustDomain, WorkloadApiClient

client = WorkloadApiClient(socket_path="unix:" + sys.argv[1])
context = client.fetch_x509_context()
svid = context.default_svid
name = svid.spiffe_id.trust_domain.name
authorities = list(context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain(name)).x509_authorities)
bundles = client.fetch_x509_bundles()
assert bundles.get_bundle_for_trust_domain(TrustDomain(name)) is not None

# Chain, validity and key against the bundle, by an independent implementation.
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

leaf = svid.leaf
chain = [*svid.cert_chain, authorities[0]]
for issued, issuer in zip(chain, chain[1:]):
    issued.verify_directly_issued_by(issuer)
form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
assert leaf.public_key().public_bytes(*form) == svid.private_key.public_key().public_bytes(*form)

# A JWT-SVID: validated by the agent, and by the client itself with the keys that the agent hands out.
token = client.fetch_jwt_svid(audience={"us", "them"})
assert token.spiffe_id == svid.spiffe_id, token.spiffe_id
assert client.validate_jwt_svid(token.token, "them").spiffe_id == svid.spiffe_id
keys = client.fetch_jwt_bundles().get_bundle_for_trust_domain(TrustDomain(name))
assert JwtSvid.parse_and_validate(token.token, keys, {"us"}).spiffe_id == svid.spiffe_id

serials, failures, enough = [], [], threading.Event()


def on_success(update):
    serial = update.default_svid.leaf.serial_number
    if serial not in serials:
        serials.append(serial)
    if len(serials) >= 3:
        enough.set()


def on_error(error):
    failures.append(str(error))
    enough.set()


watch = client.stream_x509_contexts(on_success, on_error, retry_connect=False)
enough.wait(timeout=40)
watch.cancel()
assert not failures, failures
print(json.dumps({
    "spiffe_id": str(svid.spiffe_id),
    "authorities": len(authorities),
    "jwt_svid_of": str(token.spiffe_id),
    "jwt_authorities": len(keys.jwt_authorities),
    "rotations": len(serials) - 1,
}))
