// What istiod does with another trust domain's SPIFFE bundle endpoint, by Istio's own code: takes its roots, and judges a peer's chain by them.
//
//	istio TRUST_DOMAIN ENDPOINT WEB_AUTHORITY.pem CHAIN.pem
//
// Prints how many roots the bundle has; ends with 1 and the reason if the bundle is not taken, with 2 if the peer is refused.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"istio.io/istio/pkg/spiffe"
)

func main() {
	trustDomain, endpoint := os.Args[1], os.Args[2]
	web := x509.NewCertPool()
	web.AppendCertsFromPEM(read(os.Args[3]))
	roots, err := spiffe.RetrieveSpiffeBundleRootCerts(map[string]string{trustDomain: endpoint}, web, time.Second)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(len(roots[trustDomain]))
	var chain [][]byte
	for block, rest := pem.Decode(read(os.Args[4])); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	verifier := spiffe.NewPeerCertVerifier()
	verifier.AddMappings(roots)
	if err := verifier.VerifyPeerCert(chain, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func read(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	return text
}
