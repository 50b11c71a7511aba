package oracle

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// A directory has the files that templates name.
type directory struct {
	root          string
	ca, cert, key string
}

func newDirectory(tb testing.TB) directory {
	tb.Helper()
	dir := tb.TempDir()
	d := directory{
		root: filepath.Join(dir, "root"),
		ca:   filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"),
	}
	check := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	check(os.MkdirAll(filepath.Join(d.root, "a"), 0o755)) //nolint:gosec // not secret
	for _, name := range []string{"index.html", "members", "index.php"} {
		check(os.WriteFile(filepath.Join(d.root, name), []byte(name), 0o600))
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := func(name string, ca bool) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost", "*.example"},
			IsCA: ca, BasicConstraintsValid: true,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}
	}
	issue := func(name string, key *ecdsa.PrivateKey, ca bool) []byte {
		cert, err := x509.CreateCertificate(rand.Reader, template(name, ca), template("ca", true), key.Public(), caKey)
		check(err)
		return cert
	}
	write := func(path, kind string, der []byte) {
		check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	write(d.ca, "CERTIFICATE", issue("ca", caKey, true))
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	write(d.cert, "CERTIFICATE", issue("localhost", serverKey, false))
	encoded, err := x509.MarshalPKCS8PrivateKey(serverKey)
	check(err)
	write(d.key, "PRIVATE KEY", encoded)
	memberKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	member = tls.Certificate{Certificate: [][]byte{issue("member", memberKey, false)}, PrivateKey: memberKey}
	return d
}

// member is the certificate of a client that the sites' ca has signed.
var member tls.Certificate

func stop() { _ = caddy.Stop() }
