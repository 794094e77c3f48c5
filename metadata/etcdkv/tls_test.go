package etcdkv

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = a.write("ca", a.cert, nil)
	return a
}

// write signs a certificate with the authority's key (nil: its own) and writes it and its key.
func (a *authority) write(name string, cert *x509.Certificate, signer *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return key
}

func (a *authority) issue() *TLS {
	a.t.Helper()
	a.write("node", &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.key)
	at := func(name string) string { return filepath.Join(a.dir, name) }
	return &TLS{CertFile: at("node.pem"), KeyFile: at("node.key"), CAFile: at("ca.pem")}
}

func TestTLS(t *testing.T) {
	c := newTrio(t, 3)
	c.tls = newAuthority(t).issue()
	c.start(1, 2, 3)
	c.put(c.client(9).KV(), "/k", "v")
	c.want(c.members[1].KV(), "/k", "v")
	c.crash(2)
	c.wipe(2)
	c.start(2)
	c.want(c.members[2].KV(), "/k", "v")

	// Neither without a certificate nor with that of another authority; they wait as for voters that are down.
	for what, tls := range map[string]*TLS{"none": nil, "another authority": newAuthority(t).issue()} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		m, err := Start(ctx, Options{NodeID: 10, Voters: c.voters, TLS: tls, Logger: slog.New(slog.DiscardHandler)})
		cancel()
		if err == nil {
			stop(t, m)
			t.Errorf("a client with the certificate %q was let in", what)
		}
	}
}
