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
	"os"
	"path/filepath"
	"time"
)

// authority has made the certificates of the sites and of the client.
var authority struct {
	pool   *x509.CertPool
	client tls.Certificate
}

// makeCertificates writes the certificates that Caddyfiles name to root.
func makeCertificates() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "oracle"},
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return err
	}
	authority.pool = x509.NewCertPool()
	authority.pool.AddCert(ca)
	if err := writePEM("ca.pem", "CERTIFICATE", caDER); err != nil {
		return err
	}

	issue := func(serial int64, name string, usage x509.ExtKeyUsage, hosts ...string) (tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, err
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(serial),
			Subject:      pkix.Name{CommonName: name},
			NotAfter:     time.Now().Add(24 * time.Hour),
			ExtKeyUsage:  []x509.ExtKeyUsage{usage},
			DNSNames:     hosts,
		}, ca, key.Public(), caKey)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
	}
	if authority.client, err = issue(2, "insider", x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	server, err := issue(3, "site", x509.ExtKeyUsageServerAuth, "site.test", "inside.test")
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		return err
	}
	if err := writePEM("key.pem", "PRIVATE KEY", keyDER); err != nil {
		return err
	}
	return writePEM("cert.pem", "CERTIFICATE", server.Certificate[0])
}

func writePEM(name, kind string, der []byte) error {
	return os.WriteFile(filepath.Join(root, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
